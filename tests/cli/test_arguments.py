"""Words to dataclass, and the options that a verb does not know itself."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtail.cli.arguments import flags, parse_open
from longtail.cli.compare import Compare
from longtail.cli.evaluate import Evaluate
from longtail.cli.train import Train
from longtail.errors import UsageError


def parsed(*words):
    return parse_open(Train, "train", words)


def test_what_is_missing_is_named_alone():
    with pytest.raises(UsageError) as error:
        parse_open(Evaluate, "evaluate", [])
    assert error.value.message == "RUN is missing"


def test_foreign_options_take_the_next_word_wherever_they_stand():
    for words in (["--lr", "0.1", "digits", "--max-m=2"], ["digits", "--max-m", "2", "--lr=0.1"]):
        arguments, options, given_names = parsed(*words)
        assert arguments.data == "digits"
        assert options == {"lr": "0.1", "max-m": "2"}
        assert given_names == set()


def test_own_flags_are_typed_and_remembered():
    arguments, options, given_names = parsed("--epochs", "3", "--imbalance=10", "--resume", "--data_root", "x")
    assert (arguments.epochs, arguments.imbalance, arguments.resume, arguments.data_root) == (3, 10.0, True, "x")
    assert options == {}
    assert given_names == {"epochs", "imbalance", "resume", "data_root"}


def test_negative_values_dotted_names_and_switches():
    arguments, options, _ = parsed("digits", "--epochs", "-3", "--ldam.max-m", "-1", "--nesterov", "--quiet")
    assert arguments.epochs == -3
    assert arguments.quiet
    assert options == {"ldam.max-m": "-1", "nesterov": "true"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--imbalance", "ten"], "imbalance"),
        (["--precision", "half"], "half"),
        (["--epochs"], "--epochs"),
        (["--epochs", "--quiet"], "--epochs"),
        (["digits", "more"], "more"),
        (["-x"], "-x"),
        (["--quiet=yes"], "--quiet takes no value"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # of stdout: tyro draws its boxes accordingly
def test_wrong_words_become_one_line(words, told, encoding, monkeypatch):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(UsageError, match=told) as caught:
        parsed(*words)
    assert "\n" not in caught.value.message
    assert not set("│╭╰─") & set(caught.value.message)
    assert "--- " not in caught.value.message


@settings(max_examples=20)  # tyro takes a while to build its parser
@given(st.dictionaries(st.from_regex(r"[a-z]{3}[a-z.-]{0,6}[a-z]", fullmatch=True), st.text(min_size=1), max_size=4))
def test_any_option_reaches_the_method_unchanged(options):
    options = {k: v for k, v in options.items() if f"--{k}" not in flags(Train) and k != "help"}
    words = [word for name, value in options.items() for word in (f"--{name}={value}",)]
    assert parsed("digits", *words)[1] == options


def test_shared_flags_are_the_same_in_both_verbs():
    own = {"--method", "--seed", "--out", "--resume", "--stage1", "--teacher"}
    grid = {"--methods", "--seeds", "--out", "--jobs", "--ray", "--time-limit"}
    assert set(flags(Train)) - own == set(flags(Compare)) - grid
