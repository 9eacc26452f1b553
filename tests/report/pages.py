"""What the report's tests share: a parser that refuses bad HTML, and copies of runs with something changed."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser
from pathlib import Path

import yaml

from longtail.run import Run

VOID = {"meta", "img", "input", "br", "col"}


class Page(HTMLParser):
    """A parsed page: elements in order, text by id of the table around it; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self.text: list[str] = []
        self._table: str | None = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self._table = dict(attributes).get("id")
            self.tables.setdefault(self._table, [])
        if name == "tr" and self._table:
            self.tables[self._table].append([])
        if name in ("td", "th") and self._table:
            self.tables[self._table][-1].append("")

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name
        if name == "table":
            self._table = None

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)
        if self._table and {"td", "th"} & set(self.open) and self.tables[self._table]:
            self.tables[self._table][-1][-1] += data

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def all(self, name):
        return [attributes for element, attributes in self.elements if element == name]


def copied(run: Run, folder: Path, /, **config: dict[str, object]) -> Run:
    """Return a copy of a run with some of its configuration changed."""
    shutil.copytree(run.path, folder)
    content = yaml.safe_load((folder / "config.yaml").read_text())
    for part, values in config.items():
        content[part].update(values)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return Run(folder)
