"""The command `longtail`: finds the verb, runs it, and tells what went wrong in one or two lines."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from longtail import __version__
from longtail.errors import LongtailError, UsageError, unknown_name


@dataclass(frozen=True)
class Verb:
    """A verb: the module whose ``run(words)`` does it, and its line in the overview."""

    module: str
    summary: str


VERBS = {
    "inspect": Verb("longtail.cli.inspect", "look at a data set: its long tail, bad files, doubles, what to try first"),
    "train": Verb("longtail.cli.train", "train a method on a data set and evaluate it"),
    "evaluate": Verb("longtail.cli.evaluate", "look at a run again: classes, groups, other test distributions"),
    "predict": Verb("longtail.cli.predict", "name the classes of new images, with calibrated confidences"),
    "export": Verb("longtail.cli.export", "write a run as torch.export and ONNX model, checked on real images"),
    "compare": Verb("longtail.cli.compare", "run methods x seeds and print a table with the gain over cross-entropy"),
    "decouple": Verb("longtail.cli.decouple", "train and draw the grid of features x classifier by CE, RW and RS"),
    "report": Verb("longtail.cli.report", "write one HTML page on runs: who gained, who lost, confidences, mistakes"),
    "figure": Verb("longtail.cli.figure", "draw a picture of finished runs: experts, H2T's p, decision boundaries"),
    "reproduce": Verb("longtail.cli.reproduce", "run a published table's rows and set ours beside theirs"),
    "methods": Verb("longtail.cli.methods", "list the methods, or show one: idea, options, cost, published numbers"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The words after ``longtail``; None takes those of the process.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong use.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except SystemExit as stop:  # help was printed
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # the reader has gone, as in `longtail methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return _fail(error, debug=debug, as_json="--json" in words)


def _fail(error: BaseException, *, debug: bool, as_json: bool) -> int:
    from longtail.cli.output import fail

    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        error = LongtailError("interrupted", fix="give the same command again to go on")
    return fail(error, as_json=as_json)


def _dispatch(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"longtail {__version__}")
        return 0
    verb = VERBS.get(words[0])
    if verb is None:
        raise _unknown(words[0])
    status: int = importlib.import_module(verb.module).run(words[1:])
    sys.stdout.flush()
    return status


def _unknown(word: str) -> UsageError:
    if word.startswith("-"):
        return UsageError(f"unknown option {word!r} before the verb", fix="longtail VERB ...; see longtail --help")
    return unknown_name("verb", word, VERBS)


def overview() -> str:
    """Return the help of the command itself."""
    verbs = "\n".join(f"  {name:<10}{verb.summary}" for name, verb in VERBS.items())
    return f"""\
longtail {__version__}: long-tailed visual recognition

usage: longtail VERB ...

{verbs}

  longtail VERB --help   the verb's arguments
  --json                 with every verb: the result, or the error, as JSON on stdout
  --debug                show the traceback of an error
  --version              print the version

first steps: longtail compare digits --methods ce,ldam+drw,bsce --seeds 3"""


if __name__ == "__main__":
    raise SystemExit(main())
