"""The report in Chromium: it opens without the network, filters, is worked by keys alone, fits a phone, and prints."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.chromium import DRAWN, chromium
from tests.report_cases import reported

pytestmark = pytest.mark.browser

DRAWN_PLOTS = "document.querySelectorAll('.plot[data-drawn] .main-svg').length"
INSIDE = "document.documentElement.scrollWidth <= innerWidth"
CONTRAST_MIN = 4.5
TOLD = 5


class Opened(NamedTuple):
    """A page, and what went wrong in it or left it."""

    page: Page
    said: list[str]
    asked: list[str]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    reported(folder, detailed=TOLD)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def _opened(context: BrowserContext, file: Path) -> Opened:
    context.set_offline(True)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return Opened(page, said, asked)


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = _opened(context, file)
    found.page.wait_for_selector(DRAWN)
    yield found
    context.close()


@pytest.fixture(scope="module")
def unfolded(browser: Browser, file: Path) -> Iterator[Opened]:
    """Every incident open, every figure drawn; read by several tests, changed by none."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = _opened(context, file)
    found.page.wait_for_selector(DRAWN)
    found.page.evaluate("document.querySelectorAll('details.incident').forEach((one) => { one.open = true; })")
    expect(found.page.locator(".plot:not(:has(.main-svg))")).to_have_count(0, timeout=120_000)
    yield found
    context.close()


def test_everything_is_drawn_and_nothing_fetched_said_or_run(unfolded: Opened, file: Path) -> None:
    page = unfolded.page
    assert page.evaluate(DRAWN_PLOTS) > 4 * TOLD
    assert unfolded.said == []
    assert unfolded.asked == [file.as_uri()]
    assert page.title().startswith("Client activity and decisions")
    empty = (
        "[...document.querySelectorAll('.plot')].filter((plot) => !plot.querySelector('.trace, .heatmaplayer image'))"
    )
    assert page.evaluate(f"{empty}.map((plot) => plot.id)") == []
    titles = "[...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.xtitle, .ytitle').length)"
    assert min(page.evaluate(titles)) >= 2


def test_incidents_are_filtered_and_sorted(opened: Opened) -> None:
    page = opened.page
    rows = page.locator("#listed tbody tr")
    all_of_them = rows.count()
    assert all_of_them > 10
    page.get_by_label("Client, model or title").fill("learner")
    assert page.locator("#listed tbody tr:visible").count() == 1
    assert page.locator("details.incident:visible").count() == 1
    assert page.get_by_role("status").inner_text() == f"1 of {all_of_them} incidents shown."
    page.get_by_role("button", name="All").click()
    expect(page.locator("#listed tbody tr:visible")).to_have_count(all_of_them)
    page.get_by_label("At least", exact=True).select_option("block")
    page.get_by_label("Detector", exact=True).select_option("sweep")
    assert page.locator("#listed tbody tr:visible").all_inner_texts()[0].startswith("block")
    assert page.locator("#listed tbody tr:visible").count() == 1
    page.get_by_role("button", name="All").click()
    page.get_by_role("button", name="Level").click()
    assert rows.first.inner_text().startswith("watch")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Level")


def test_by_keys_alone_from_the_top_into_an_incident(opened: Opened) -> None:
    page = opened.page

    def focused() -> str:
        text: str = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        return text

    page.keyboard.press("Tab")
    assert focused() == "To the summary"
    page.keyboard.press("Enter")
    page.wait_for_selector("#summary:focus")
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused() == "filter-text":
            break
    page.keyboard.type("learner")
    assert page.locator("#listed tbody tr:visible").count() == 1
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused() == "Copying of the model by queries":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    page.wait_for_selector("details.incident[open]:visible .plot[data-drawn] .main-svg")
    page.wait_for_selector("details.incident[open] > summary:focus")
    page.keyboard.press("Enter")
    assert page.locator("details.incident[open]:visible").count() == 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("details.incident[open]:visible details.data[open]").count() == 1


def test_a_screen_reader_is_told_what_everything_is(unfolded: Opened) -> None:
    page = unfolded.page
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "textbox", "searchbox", "combobox", "image", "figure", "region", "navigation", "search"}
    met: dict[str, int] = {}
    for node in nodes:
        role = node.get("role", {}).get("value", "")
        if not node["ignored"] and role in named:
            met[role] = met.get(role, 0) + 1
            assert node.get("name", {}).get("value", "").strip(), node
    assert met["figure"] > 4 * TOLD and met["image"] == met["figure"] and met["button"] >= 9, met
    levels = [
        int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => h.tagName)")
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_hangs_over_the_edge(browser: Browser, file: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=True, is_mobile=True)
    opened = _opened(context, file)
    opened.page.wait_for_selector(DRAWN)
    assert opened.page.evaluate(INSIDE)
    widest = (
        "Math.max(...[...document.querySelectorAll('.plot .main-svg')].map((svg) => svg.getBoundingClientRect().right))"
    )
    assert opened.page.evaluate(widest) <= width
    assert opened.said == []
    context.close()


def test_in_print_everything_is_open_and_drawn(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    shut = page.locator("details.incident:not([open])").count()
    undrawn = page.evaluate("[...document.querySelectorAll('.plot')].filter((plot) => !plot.dataset.drawn).length")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert (shut, undrawn) == (0, 0)
    assert page.locator("details.incident[open]").count() == 1
    printed = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert printed.count(b"/Type /Page\n") > TOLD
    assert opened.said == []


def test_without_scripts_words_and_tables_are_there(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert "clients to 1 model were judged" in page.locator("#summary").inner_text()
    assert "Figures need JavaScript" in page.locator("#summary").inner_text()
    assert page.locator("#listed tbody tr:visible").count() > 10
    page.locator("#timeline ~ details summary").click()
    assert page.locator("#timeline ~ details table").is_visible()
    context.close()


def test_text_stands_out_from_its_background(unfolded: Opened) -> None:
    """WCAG 2.2, 1.4.3."""
    found = unfolded.page.evaluate(
        """() => {
        const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        const behind = (node) => {
          for (let at = node; at; at = at.parentElement) {
            const colour = rgb(getComputedStyle(at).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
          }
          return [255, 255, 255];
        };
        return [...document.querySelectorAll('body *')]
          .filter((node) => !node.closest('svg, script'))
          .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
          .map((node) => {
            const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.className || node.tagName];
          });
        }"""
    )
    assert len(found) > 100
    assert [entry for entry in found if entry[0] < CONTRAST_MIN] == []
