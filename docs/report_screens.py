"""Take the pictures of docs/report.md from a report page in Chromium: `python docs/report_screens.py PAGE`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))
from browser import Browser

HERE = Path(__file__).parent
VIEWS = {
    "report-light": (1040, 1490, "light", "#headline"),
    "report-dark": (1040, 1330, "dark", "#confidences"),
    "report-phone-light": (390, 1500, "light", "#headline"),
    "report-phone-dark": (390, 1500, "dark", "#classes"),
}


def main(page: str) -> None:
    """Write one picture for each view."""
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder) / "profile")
        raw = Path(folder) / "raw.png"
        for name, (width, height, scheme, section) in VIEWS.items():
            browser.size(width, height)
            browser.scheme(scheme)
            browser.open(Path(page).resolve().as_uri())
            top = browser.run(f"document.querySelector('{section}').getBoundingClientRect().top + scrollY")
            top = 0 if section == "#headline" else top
            browser.screenshot(raw, x=0, y=top, width=width, height=height)
            Image.open(raw).convert("RGB").save(HERE / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
