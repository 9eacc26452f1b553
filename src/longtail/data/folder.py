"""A folder of class folders: ``DATA/CLASS/*.jpg``, or with ``train``, ``val`` and ``test`` in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from longtail.data.decode import EXTENSIONS
from longtail.data.listing import SPLIT_WORDS, Item, Listing, class_order, tidy_name
from longtail.data.problems import Problem
from longtail.errors import LongtailError, UsageError

_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_RUN_FILES = ("config.yaml", "history.jsonl")
_GRID_PICTURES = frozenset({"decoupling.png"})
_DEPTH_OF_RUNS = 3  # runs/GRID/RUN


def read_folder(folder: Path, name: str) -> Listing:
    """List the files of a folder of class folders; each class folder is searched to any depth.

    Run folders, and folders that hold nothing else, are left out: who trains where the images are has them there.

    Where one of its folders is called ``train`` and the others are splits too (``val``, ``valid``, ``validation``,
    ``test`` ...), the class folders are one level further down. A folder ``train`` beside class folders only, or with
    images in it, is a class.

    Args:
        folder: The folder.
        name: Short name of the data set.

    Raises:
        LongtailError: The folder cannot be read.
        UsageError: Some of its folders are splits and others do not fit to that.
    """
    problems: list[Problem] = []
    tree = _Tree(folder, problems)
    top = tree.folders("")
    if top is None:
        raise LongtailError(f"{folder}: cannot be read ({problems[0].detail})")
    splits = _splits(folder, tree, top)
    items: list[Item] = []
    classes: list[str] = []
    for part, split in splits.items():
        for label in tree.folders(part) or ():
            inside = os.path.join(part, label)
            classes.append(tidy_name(label))
            items += [Item(path, tidy_name(label), split or "") for path in tree.files_below(inside)]
        tree.report_loose_files(part)
    if "" not in splits:
        tree.report_loose_files("")
    notes = tuple(f"{inside} holds runs and is left out" for inside in tree.runs)
    return Listing(name, folder, folder, class_order(classes), tuple(items), tuple(problems), notes)


def _splits(folder: Path, tree: _Tree, top: list[str]) -> dict[str, str]:
    """Return the folders that hold class folders, each with its split; ``""`` is the root itself.

    Raises:
        UsageError: ``train`` holds class folders beside another split, but not everything fits to that.
    """
    splits = {found: SPLIT_WORDS[found.lower()] for found in top if found.lower() in SPLIT_WORDS}
    train = next((found for found, split in splits.items() if split == "train"), None)
    whole = len(splits) == len(top) and all(map(tree.folders, top))
    if train is not None and whole:
        return splits
    if train is None or len(splits) == 1 or not tree.folders(train) or tree.has_images(train):
        return {"": ""}
    # Classes called train and test would be rare beside what this is otherwise: a test set without labels, or a folder
    # that lies there by chance.
    if flat := [found for found in splits if not tree.folders(found)]:
        told = f"{flat[0]!r} holds {'images' if tree.has_images(flat[0]) else 'none'}"
        fix = f"name {folder / train} as the data, or make {flat[0]!r} hold class folders too"
    else:
        others = [found for found in top if found not in splits]
        told = f"{', '.join(map(repr, others[:3]))}{' ...' if len(others) > 3 else ''} beside it names no split"
        fix = f"move what is no split out of {folder}"
    raise UsageError(f"{folder}: {train!r} holds class folders, but {told}", fix=fix)


def files_below(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """Yield all files below a folder in sorted order, hidden ones left out; ``problems`` gets what cannot be read."""
    return (folder / path for path in _Tree(folder, problems).files_below(""))


class _Tree:
    """The folders and files below a root, in sorted order, hidden ones and runs left out.

    What cannot be read is reported; ``runs`` has the folders of runs that were met, as keys.
    """

    def __init__(self, root: Path, problems: list[Problem]) -> None:
        self.runs: dict[str, None] = {}
        self._root = root
        self._problems = problems

    def _entries(self, inside: str) -> list[os.DirEntry[str]] | None:
        try:
            with os.scandir(self._root / inside) as entries:
                found = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _IGNORED]
        except OSError as error:
            self._problems.append(Problem(inside or ".", "no access", error.strerror or str(error)))
            return None
        runs = {entry.name for entry in found if _is_folder(entry) and _holds_runs(entry.path)}
        self.runs |= dict.fromkeys(os.path.join(inside, name) for name in sorted(runs))
        return sorted((entry for entry in found if entry.name not in runs), key=lambda entry: entry.name)

    def folders(self, inside: str) -> list[str] | None:
        """Return the names of the folders directly inside one, or None where it cannot be read."""
        entries = self._entries(inside)
        return None if entries is None else [entry.name for entry in entries if _is_folder(entry)]

    def has_images(self, inside: str) -> bool:
        """Return whether a folder directly holds a file that is called an image."""
        entries = self._entries(inside) or ()
        return any(os.path.splitext(e.name)[1].lower() in EXTENSIONS for e in entries if not _is_folder(e))

    def report_loose_files(self, inside: str) -> None:
        """Report the files directly inside a folder that should only hold folders."""
        for entry in self._entries(inside) or ():
            if not _is_folder(entry):
                path = os.path.join(inside, entry.name)
                self._problems.append(Problem(path, "outside", "not in a class folder"))

    def files_below(self, inside: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
        """Yield the paths of all files below a folder; links to folders are followed, but never round in a loop."""
        entries = self._entries(inside)
        if entries is None:
            return
        here = (self._root / inside).stat()
        above = above or frozenset({_identity(self._root.stat())})
        above |= {_identity(here)}
        for entry in entries:
            path = os.path.join(inside, entry.name)
            if not _is_folder(entry):
                yield path
            elif _identity(entry.stat()) in above:
                self._problems.append(Problem(path, "not a file", "a link to a folder that it lies in"))
            else:
                yield from self.files_below(path, above)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _holds_runs(folder: str, depth: int = _DEPTH_OF_RUNS) -> bool:
    """Return whether a folder is a run's, or holds such folders, and no others and no images."""
    if all(os.path.isfile(os.path.join(folder, name)) for name in _RUN_FILES):
        return True
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    if depth == 1 or not _holds_runs(entry.path, depth - 1):
                        return False
                    found = True
                elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.name not in _GRID_PICTURES:
                    return False
    except OSError:
        return False
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
