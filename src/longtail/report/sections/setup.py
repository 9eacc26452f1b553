"""What was run, on what, and the command that runs it again."""

from __future__ import annotations

from typing import Any

from longtail.command import command_of, without_folders
from longtail.config import read_config
from longtail.report.sections.chart import details, row, table
from longtail.report.sections.markup import Markup, join, tag
from longtail.report.sections.study import Entry, Study
from longtail.report.sections.words import duration
from longtail.run import Run


def setup_section(study: Study) -> Markup:
    """Return the section."""
    blocks = [(entry.number, entry.label, _block(entry)) for entry in study.entries]
    return tag(
        "section", tag("h2", "Settings, and how to run it again"), details(blocks, study.best.number), id="settings"
    )


def _block(entry: Entry) -> Markup:
    commands = [without_folders(command_of(run.config, run.runtime.asdict())) for run in entry.runs]
    rows = [row(name, value) for name, value in _settings(entry.runs[0]).items()]
    return join(
        tag("pre", "\n".join(commands), tabindex="0", aria_label="Commands"),
        tag(
            "details", tag("summary", "Settings"), table(["setting", "value"], rows, caption="Settings", class_="plain")
        ),
    )


def _settings(run: Run) -> dict[str, str]:
    """Return what a reader may want to know of a run; no path of the machine that it ran on."""
    config = run.config
    _, more = read_config(run.path)
    made_by: dict[str, Any] = more.get("made_by") or {}
    runtime = run.runtime
    settings: dict[str, Any] = {
        "data set": config.dataset,
        "imbalance": f"{config.imbalance:g} ({config.profile} profile, subset seed {config.subset_seed})",
        "development images a class": config.dev_per_class,
        "method": config.method,
        "protocol": config.protocol,
        "backbone": config.backbone,
        **{name.replace("_", " "): value for name, value in config.budget.items()},
        **config.options,
        "device": f"{runtime.device}, {runtime.precision}",
        "threads": runtime.threads,
        "training time": duration(float(run.metrics.get("train_seconds") or 0)),
        "selection": run.metrics.get("selection"),
        "best epoch on the test set, for reference": f"{run.metrics.get('best_test_epoch_top1', 0):.1f} %",
        **{name: made_by.get(name) for name in ("longtail", "torch", "numpy", "python", "processor", "commit")},
    }
    return {name: _plain(value) for name, value in settings.items() if value not in (None, [], ())}


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
