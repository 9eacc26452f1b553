"""The pages say what the code does: each method has one, its options and defaults stand there, examples run."""

import re
from pathlib import Path

import pytest

from longtail import methods
from longtail.methods import METHODS, MODIFIERS
from longtail.methods.options import options_of

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"
ENTRIES = {**METHODS, **MODIFIERS}
SECTIONS = ["Idea", "When it helps and when not", "Options", "Official code, and what differs here", "Cost", "Command"]


def page(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def shown_name(name):
    return f"+{name}" if name in MODIFIERS else name


@pytest.mark.parametrize("name", ENTRIES)
def test_every_method_and_modifier_has_a_page_with_all_sections(name):
    text = page(name)
    assert text.splitlines()[0].endswith(f": `{shown_name(name)}`")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [*SECTIONS, "Published numbers"]
    assert "See [results](../results.md)." in text


def test_no_page_is_left_over():
    assert {path.stem for path in PAGES.glob("*.md")} == set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_page_lists_the_options_with_their_defaults(name):
    rows = dict(re.findall(r"^\| `--([a-z0-9-]+)` \| ([^|]*) \|", page(name), re.MULTILINE))
    options = options_of(name, ENTRIES[name].function)
    assert list(rows) == [option.replace("_", "-") for option in options]
    for option in options.values():
        stated = rows[option.name.replace("_", "-")]
        if isinstance(option.default, bool):
            assert stated == ("on" if option.default else "off")
        elif option.default is not None:  # None is settled from the task; the page says how in words
            assert stated == str(option.default)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_page_s_commands_name_methods_that_exist(name):
    named = re.findall(r"--method ([a-z0-9+-]+)", page(name))
    assert any(name in methods.parse(method) for method in named)


@pytest.mark.parametrize("name", ENTRIES)
def test_the_readme_s_table_has_every_method(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| [`{shown_name(name)}`](docs/methods/{name}.md) |" in readme


def test_links_between_the_pages_lead_somewhere():
    generated = {"results.md", "digits-demo.png"}  # made by `make docs-results` and `make docs-figure`
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http") and Path(target).name not in generated:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def readme_examples():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", readme_examples(), ids=["train-and-load", "own-loop", "mixing"])
def test_the_readme_s_python_examples_run(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
