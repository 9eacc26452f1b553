from __future__ import annotations

import subprocess
import sys

import pytest

import longtail
from longtail.errors import LongtailError, UsageError, unknown_name


def test_an_error_is_what_was_wrong_and_the_fix():
    error = LongtailError("the file x is damaged", fix="fetch it again")
    assert str(error) == "the file x is damaged\n  fetch it again"
    assert error.exit_status == 1
    assert UsageError("wrong").exit_status == 2


def test_unknown_names_offer_the_nearest_or_all():
    assert "did you mean cifar10" in str(unknown_name("data set", "cifra10", ["cifar10", "digits"]))
    assert "known: cifar10, digits" in str(unknown_name("data set", "zzz", ["cifar10", "digits"]))
    assert unknown_name("option", "--epoch", ["--epochs", "--epochs"]).fix == "did you mean --epochs?"
    # Two dashes are in all flags, and make none of them alike.
    assert unknown_name("option", "tau", []).fix == "there are no options here"
    assert unknown_name("option", "--qq", ["--lr"]).fix == "known: --lr"
    assert unknown_name("method", "cRT", ["crt", "la"]).fix == "did you mean crt?"
    assert unknown_name("method", "BalancedSoftmax", ["bsce"], {"bsce": "Balanced softmax"}).fix == "did you mean bsce?"


def test_importing_the_package_loads_no_torch():
    program = "import sys, longtail; assert 'torch' not in sys.modules; longtail.losses; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_only_reads_runs_loads_no_trainer():
    program = (
        "import sys, longtail.borrowing, longtail.export, longtail.predict, longtail.report.html; "
        "trainer = {'longtail.session', 'longtail.underway', 'longtail.training.loop'} & set(sys.modules); "
        "sys.exit(', '.join(trainer) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names_are_there():
    for name in longtail.__all__:
        assert getattr(longtail, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = longtail.nothing
