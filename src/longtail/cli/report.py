"""`longtail report`: one HTML page on finished runs, and its plots as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from longtail.cli.arguments import parse
from longtail.cli.output import note, say, say_json
from longtail.cli.setup import Unset
from longtail.config import CONFIG_NAME, read_config, resume_command
from longtail.errors import LongtailError, UsageError

if TYPE_CHECKING:
    from longtail.run import Run

FORMATS = (".html", ".htm")


@dataclass(frozen=True)
class Report:
    """Write one HTML page on finished runs: who gained and who lost, confidences, mistakes, training, settings.

    The page holds everything and asks no network: open it anywhere, send it to anyone. Seeds of one method are
    averaged. With plain cross-entropy among the runs, everything is shown against it.
    """

    runs: Positional[tuple[str, ...]]
    """Run folders, or folders that hold run folders, such as that of a comparison"""
    out: Unset[str] = None
    """The file (default: report.html in the folder that was given, or here for several)"""
    figures: Unset[str] = None
    """Also write the plots as PNG and SVG files into this folder"""
    data_root: Unset[str] = None
    """Folder of the data sets, for example images (default: LONGTAIL_DATA, else ./.data)"""
    no_images: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show no images of the data set"""
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON on stdout"""


def run(words: Sequence[str]) -> int:
    """Do the verb; return the exit status."""
    arguments = parse(Report, "report", words)
    if not arguments.runs:
        raise UsageError("no run is given", fix="longtail report RUN...; see longtail report --help")
    folders, unfinished, damaged = find_runs([Path(name) for name in arguments.runs])
    out = _file(arguments)
    tell_left_out(unfinished, damaged)
    from longtail.report.html import report_page
    from longtail.run import Run

    runs = [Run(folder) for folder in folders]
    text = report_page(runs, data_root=arguments.data_root, images=not arguments.no_images)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LongtailError(f"{out} cannot be written: {error.strerror}", fix="choose another --out") from error
    figures = _figures(runs, arguments.figures)
    if arguments.json:
        plain = {"runs": [str(folder) for folder in folders], "unfinished": [str(folder) for folder in unfinished]}
        say_json({"path": str(out), **plain, "figures": [str(path) for path in figures]})
    else:
        drawn = f", {len(figures)} figure files" if figures else ""
        note(f"{len(runs)} run(s), {len(text.encode()) / 1e6:.1f} MB{drawn}")
        say(str(out))
    return 0


def find_runs(folders: Sequence[Path]) -> tuple[list[Path], list[Path], list[LongtailError]]:
    """Find the run folders that are given or lie within those given, each once.

    Files beside folders, such as the tables of a comparison, are left out: `GRID/*` names them too.

    Returns:
        The finished ones, and of those that lie within: the unfinished ones, and why others cannot be read.

    Raises:
        LongtailError: A folder is none, or holds no finished run.
    """
    found: dict[Path, Path] = {}
    unfinished: list[Path] = []
    damaged: list[LongtailError] = []
    beside = any(folder.is_dir() for folder in folders)
    for folder in folders:
        if beside and folder.is_file():
            damaged.append(LongtailError(f"{folder} is a file and not a run folder"))
            continue
        if (folder / CONFIG_NAME).exists() or not folder.is_dir():
            found.setdefault(folder.resolve(), folder)  # what is no run is told when it is read
            continue
        within = _readable(sorted(path.parent for path in folder.rglob(CONFIG_NAME)), damaged)
        finished = [path for path in within if (path / "metrics.json").exists()]
        if not finished:
            raise LongtailError(f"{folder} is not a run folder, and none that is finished lies within it")
        unfinished += [path for path in within if path not in finished]
        for path in finished:
            found.setdefault(path.resolve(), path)
    return list(found.values()), unfinished, damaged


def tell_left_out(unfinished: Sequence[Path], damaged: Sequence[LongtailError]) -> None:
    """Say which of what `find_runs` met is not looked at."""
    for folder in unfinished:
        note(f"left out: {folder} is not finished ({resume_command(folder)})")
    for error in damaged:
        note(f"left out: {error.line}")


def _readable(folders: Sequence[Path], damaged: list[LongtailError]) -> list[Path]:
    """Return the folders whose configuration can be read; ``damaged`` gets why the others cannot."""
    readable = []
    for folder in folders:
        try:
            read_config(folder)
        except LongtailError as error:
            damaged.append(error)
        else:
            readable.append(folder)
    return readable


def _file(arguments: Report) -> Path:
    """Return where the page goes; found wrong before anything is computed."""
    if arguments.out is None:
        first = Path(arguments.runs[0])
        return first / "report.html" if len(arguments.runs) == 1 and first.is_dir() else Path("report.html")
    out = Path(arguments.out)
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder", fix=f"--out {out / 'report.html'}")
    if out.suffix.lower() not in FORMATS:
        raise UsageError(
            f"--out {out} ends in {out.suffix or 'nothing'}; the page is HTML, and its name must end in "
            f"{' or '.join(FORMATS)}",
            fix=f"--out {out.with_suffix('.html')}; --figures FOLDER writes the plots as PNG and SVG",
        )
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    return out


def _figures(runs: Sequence[Run], folder: str | None) -> list[Path]:
    if folder is None:
        return []
    from longtail.report.paper import write_figures

    return write_figures(runs, Path(folder))
