import json

from longtail.cli.main import main

QUICK = "--protocol quick --epochs 1 --stage2-epochs 1 --precision fp32 --threads 1 --compile off --quiet"


def test_the_grid_is_trained_printed_and_drawn(tmp_path, capsys):
    words = ["decouple", "digits", *QUICK.split(), "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "features CE" in printed
    assert "as trained" in printed
    assert (tmp_path / "decoupling.png").stat().st_size > 1000
    written = json.loads((tmp_path / "decoupling.json").read_text())
    assert len(written["errors"]) == 9
    assert len(written["runs"]) == 12
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["errors"] == written["errors"]
    assert {run["status"] for run in told["runs"]} == {"kept"}


def test_wrong_use_is_said(tmp_path, capsys):
    assert main(["decouple", "digits", "--seeds", "0"]) == 2
    assert "seeds is 0" in capsys.readouterr().err
    assert main(["decouple", str(tmp_path), "--seed", "1"]) == 2  # before the data are read
    assert "did you mean --seeds" in capsys.readouterr().err
