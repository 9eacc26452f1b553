"""`longtail figure`: pictures of finished runs, as PNG, SVG or PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.output import note, say, say_json
from longtail.cli.report import find_runs, tell_left_out
from longtail.cli.setup import Unset
from longtail.errors import LongtailError, UsageError, unknown_name

NAMES = ("ratio", "boundary", "forces", "experts", "groups", "gain", "weights", "virtual")
FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Figure:
    """Draw a picture of finished runs into a PNG, SVG or PDF file.

    ratio: accuracy of each shot group against H2T's p; runs of one method that differ in --p.

    boundary: two classes on both sides of the classifier's boundary; one run, or two: before and after H2T.

    forces: the two forces of H2T's geometry in trained classifiers; one run, or several to compare.

    experts: accuracy of each expert and of their average, class by class; one run.

    groups: accuracy by shot group and method, seeds averaged; any runs on one data set.

    gain: what each class gains over a baseline; runs of a method, then of the baseline.

    weights: what the images of each class weighed over training; one run of da-meta, l2rw or meta-weight-net.

    virtual: virtual examples of each class by one teacher or several (DiVE), on the first run's training images.
    """

    name: Positional[str]
    """Which picture"""
    runs: Positional[tuple[str, ...]]
    """Run folders, or folders that hold run folders, such as that of a comparison"""
    out: Unset[str] = None
    """The file; its ending says the format (default: NAME.png)"""
    classes: Unset[str] = None
    """boundary: a frequent and a rare class, as names or numbers with a comma between (default: largest, smallest
    with test images)"""
    expert: int = 1
    """boundary and forces: which expert, for runs that have several"""
    p: Unset[float] = None
    """forces: share of channels that is overwritten (default: the last run's)"""
    temperature: float = 1.0
    """virtual: by what the teachers are flattened; DiVE's power 0.5 doubles it"""
    data_root: Unset[str] = None
    """Folder of the data sets, for pictures that look at images (default: LONGTAIL_DATA, else ./.data)"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON on stdout"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Figure, "figure", words)
    if arguments.name not in NAMES:
        raise unknown_name("figure", arguments.name, NAMES)
    out = _file(arguments)
    classes = _classes(arguments.classes)
    from longtail.cli.figures import Choices, draw

    choices = Choices(classes, arguments.expert, arguments.p, arguments.data_root, arguments.temperature)
    folders, unfinished, damaged = find_runs([Path(name) for name in arguments.runs])
    tell_left_out(unfinished, damaged)
    picture = draw(arguments.name, folders, choices)
    try:
        picture.savefig(out, dpi=150)
    except OSError as error:
        raise LongtailError(f"{out} cannot be written: {error.strerror}", fix="choose another --out") from error
    if arguments.json:
        say_json({"figure": arguments.name, "runs": [str(folder) for folder in folders], "path": str(out)})
    else:
        note(f"{arguments.name} of {len(folders)} run(s)")
        say(str(out))
    return 0


def _file(arguments: Figure) -> Path:
    """Return where the picture goes; found wrong before anything is computed."""
    out = Path(arguments.out or f"{arguments.name}.png")
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out} ends in {out.suffix or 'nothing'}; it must end in {', '.join(FORMATS)}")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    return out


def _classes(words: str | None) -> tuple[str, str] | None:
    if words is None:
        return None
    parts = [word.strip() for word in words.split(",")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--classes is {words!r}; it takes two classes", fix="for example --classes 0,9")
    return parts[0], parts[1]
