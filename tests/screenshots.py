"""`make screenshots`: a report as people see it, wide, on a phone and printed, into out/screenshots. Look at them.

The top of the wide one is the picture in README.md.

It is the report of the demonstration if `make run` has left one, else one on every kind of attack.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.chromium import DRAWN, chromium
from tests.report_cases import reported

OUT = Path("out/screenshots")
PICTURE, PICTURE_PX = Path("docs/report.png"), 1_010
DEMO = Path("out/demo/replay/report.html")
SCREENS = {"wide": (1280, 900), "phone": (390, 844)}
STRIP_PX = 1_600
"""Long pages come in strips that a person can read."""


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for path in OUT.glob("*.p*"):
        path.unlink()
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        report = DEMO
        if not report.is_file():
            report = Path(name) / "report.html"
            reported(Path(name))
        for screen, size in SCREENS.items():
            _screen(browser, report, screen, size)
        page = _opened(browser, report, SCREENS["wide"])
        top = {"x": 0, "y": 0, "width": SCREENS["wide"][0], "height": PICTURE_PX}
        page.screenshot(path=PICTURE, full_page=True, clip=top)  # type: ignore[arg-type]
        page.pdf(
            path=OUT / "printed.pdf", format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "12mm")
        )
    print(f"{report}: {', '.join(sorted(path.name for path in OUT.iterdir()))} in {OUT}; {PICTURE}", file=sys.stderr)


def _screen(browser: Browser, report: Path, screen: str, size: tuple[int, int]) -> None:
    """The whole page, the first incident open."""
    page = _opened(browser, report, size)
    height = int(page.evaluate("document.documentElement.scrollHeight"))
    for number, top in enumerate(range(0, height, STRIP_PX), 1):
        strip = {"x": 0, "y": top, "width": size[0], "height": min(STRIP_PX, height - top)}
        page.screenshot(path=OUT / f"{screen}-{number}.png", full_page=True, clip=strip)  # type: ignore[arg-type]
    page.context.close()


def _opened(browser: Browser, report: Path, size: tuple[int, int]) -> Page:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=size[0] < 640)
    page = context.new_page()
    page.goto(report.absolute().as_uri())
    page.wait_for_selector(DRAWN)
    return page


if __name__ == "__main__":
    main()
