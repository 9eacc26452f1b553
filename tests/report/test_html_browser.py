"""The report in a real browser: no errors, no network, and every control does what it says."""

from __future__ import annotations

import pytest
from browser import Browser, find

from longtail.report.html import report_page

pytestmark = pytest.mark.skipif(find() is None, reason="no chromium here")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driven = Browser(tmp_path_factory.mktemp("profile"))
    yield driven
    driven.close()


@pytest.fixture(scope="module")
def report(finished_runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(list(finished_runs.values())), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, report):
    browser.complaints.clear()
    browser.requests.clear()
    browser.size(1100, 900)
    browser.open(report.as_uri())
    return browser


def middle(browser, selector):
    """Scroll an element into sight and return the middle of it in the window."""
    browser.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    return browser.run(
        f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
        "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )


def click(browser, selector):
    browser.mouse(*middle(browser, selector), click=True)


def column(browser, number):
    cells = f"[...document.querySelectorAll('#comparison-table tbody tr')].map(r => r.cells[{number}])"
    return browser.run(f"{cells}.map(c => c.dataset.v === undefined ? c.textContent : Number(c.dataset.v))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_it_opens_without_complaint_network_or_sideways_scrolling(opened, report, scheme, width, tmp_path):
    opened.size(width, 800)
    opened.scheme(scheme)
    opened.open(report.as_uri())
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {report.as_uri()}
    assert opened.run("document.documentElement.scrollWidth") == width
    paper = opened.run("getComputedStyle(document.body).backgroundColor")
    assert (int(paper.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")
    opened.screenshot(tmp_path / "seen.png")
    assert (tmp_path / "seen.png").stat().st_size > 5000


def test_a_heading_orders_the_comparison_and_again_the_other_way(opened):
    heading = "#comparison-table thead th:nth-child(3) button"
    before = column(opened, 2)
    click(opened, heading)
    assert column(opened, 2) == sorted(before, reverse=True)
    assert opened.run("document.querySelector('#comparison-table [aria-sort]').ariaSort") == "descending"
    click(opened, heading)
    assert column(opened, 2) == sorted(before)
    click(opened, "#comparison-table thead th:nth-child(1) button")
    assert column(opened, 0) == ["bsce", "ce", "ride"]
    assert opened.run("document.querySelectorAll('#comparison-table [aria-sort]').length") == 1


def shown(browser):
    return browser.run("[...document.querySelectorAll('#classes .detail')].findIndex(e => e.offsetParent !== null)")


def test_choosing_a_method_shows_its_part_everywhere(opened):
    for number in (2, 0, 1):
        click(opened, f"button[data-pick='{number}']")
        assert shown(opened) == number
        assert opened.run("document.getElementById('pick').value") == str(number)
        seen = "[...document.querySelectorAll('.detail')].filter(e => e.offsetParent).every(e => e.dataset.entry === "
        assert opened.run(f"{seen}'{number}')")
    opened.run("(p => { p.value = '2'; p.dispatchEvent(new Event('change')); })(document.getElementById('pick'))")
    assert shown(opened) == 2
    assert opened.run("document.querySelector('.curve:last-of-type').dataset.entry") == "2"


def test_pointing_at_a_class_reads_it_out_and_leaving_stops(opened):
    number = shown(opened)
    plot = f"#classes .detail[data-entry='{number}'] [data-readout]"
    said = f'document.querySelector("{plot}").previousElementSibling.textContent'
    hint = opened.run(said)
    x, y = middle(opened, f"{plot} > svg")
    width = opened.run(f'document.querySelector("{plot} > svg").getBoundingClientRect().width')
    row = f"document.querySelector('#classes-{number} tbody tr:nth-child(4)')"
    name, images = opened.run(f"[{row}.cells[0].textContent, {row}.cells[1].textContent]")
    opened.mouse(x - width / 2 + width * 0.35, y)  # the fourth of ten classes
    assert opened.run(said).startswith(f"{name}: training images {images} · group medium")
    assert opened.run("document.querySelectorAll('.cursor').length") == 1
    opened.mouse(5, 5)
    assert opened.run(said) == hint


def test_a_finger_reads_a_class_too(opened, report):
    opened.size(390, 800)
    opened.open(report.as_uri())
    plot = f"#classes .detail[data-entry='{shown(opened)}'] [data-readout]"
    x, y = middle(opened, f"{plot} > svg")
    opened.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x + 5, "y": y}])
    opened.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert opened.run(f'document.querySelector("{plot}").previousElementSibling.textContent').startswith("5: ")


def test_the_keyboard_goes_along_a_chart_in_order_of_the_axis(opened):
    # The order of the table must not matter.
    number = shown(opened)
    opened.run(f"document.querySelector('#classes-{number} thead button').click()")
    plot = f"document.querySelector(\"#classes .detail[data-entry='{number}'] [data-readout]\")"
    opened.run(f"{plot}.focus()")
    heard = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home"):
        opened.key(key)
        heard.append(opened.run(f"{plot}.previousElementSibling.textContent").split(":")[0])
    assert heard == ["0", "1", "0", "9", "9", "0"]
    opened.key("Escape")
    assert "arrow keys" in opened.run(f"{plot}.previousElementSibling.textContent")


def test_every_chart_has_a_table_and_reads_from_it(opened):
    assert opened.run(
        "[...document.querySelectorAll('[data-readout]')].every(p => {"
        " p.dispatchEvent(new KeyboardEvent('keydown', {key: 'End'}));"
        " return p.previousElementSibling.classList.contains('live') && p.querySelector('svg[role=img]').ariaLabel; })"
    )


def test_typing_finds_a_class(opened):
    number = shown(opened)
    box = f"document.querySelector('[data-filter=classes-{number}]')"
    opened.run(f"{box}.value = '7'; {box}.dispatchEvent(new Event('input'))")
    rows = f"[...document.querySelectorAll('#classes-{number} tbody tr')].filter(r => !r.hidden)"
    assert opened.run(f"{rows}.map(r => r.cells[0].textContent)") == ["7"]


def test_without_scripts_everything_is_shown(opened, report, tmp_path):
    opened.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.call("Page.navigate", url=report.as_uri())
        opened.open(report.as_uri())
        assert opened.run("[...document.querySelectorAll('.detail')].every(e => e.offsetParent !== null)")
        assert opened.run("document.getElementById('pick').offsetParent") is None
    finally:
        opened.call("Emulation.setScriptExecutionDisabled", value=False)
