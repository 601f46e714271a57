"""What stands in a report, without a browser: figures that say what to see and agree with events, in one file."""

import base64
import dataclasses
import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import plotly.graph_objects
import pytest

from detector.events.finding import LEVELS
from detector.events.wording import about
from detector.frame import RowFrame
from detector.trace.trace import Trace, follow
from models.encoders.embedding import EmbeddingEncoder
from models.rows import UNIT
from streams.analyst.events import ThrottleEvent, decode_event
from streams.analyst.labels import Label
from streams.replay import jobs
from streams.replay.evidence import gather
from streams.replay.fold import Findings
from streams.replay.summary import SAMPLE_ROWS
from streams.report import contents, enforcement, evidence, inputs, overview, write_report
from streams.report.page import packed, page
from streams.report.plots import PlotFigure, TracedClient
from tests.report_cases import HARM, REVERSED, Reported, reported
from tests.test_compare import throttle

BYTES_MAX = 5_000_000
AXIS = re.compile(r".+ \(.+\)|field|detector|client|class: level|requests in \d+ (s|min|h)")
"""A quantity with its unit, or names on an axis of categories, or a count that names what it counts."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    return reported(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def figures(report: Reported) -> dict[str, dict[str, Any]]:
    (text,) = re.findall(r'id="packed-figures">([^<]+)<', report.text)
    found: dict[str, dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(text)))
    return found


def _throttles(report: Reported) -> list[ThrottleEvent]:
    events = [decode_event(event.value) for event in report.outcome.events]
    return [event for event in events if isinstance(event, ThrottleEvent)]


def test_every_figure_is_one_that_plotly_knows_with_axes_that_name_unit(figures: dict[str, dict[str, Any]]) -> None:
    kinds = {name.partition("-")[0] for name in figures}
    assert kinds == {"timeline", "throttling", "alarms", "evidence", "path", "answers", "fields", "comparison"}
    for name, figure in figures.items():
        plotly.graph_objects.Figure(figure)  # raises for what it does not know
        for axis in ("xaxis", "yaxis", "yaxis2"):
            if axis in figure["layout"]:
                assert AXIS.fullmatch(figure["layout"][axis]["title"]["text"]), (name, axis)


def test_every_figure_has_a_title_that_says_what_to_see_and_its_numbers_as_a_table(
    report: Reported, figures: dict[str, dict[str, Any]]
) -> None:
    captions = dict(re.findall(r'<figcaption id="([^"]+)-caption"><h\d>(.+?)</h\d>', report.text))
    assert set(captions) == set(figures)
    assert all(re.search(r"\d|No |only", caption) for caption in captions.values()), captions
    described = re.findall(r'class="plot" id="([^"]+)" role="img" aria-label="([^"]{30,})"', report.text)
    assert {name for name, _ in described} == set(figures)
    tables = re.findall(r'<div class="plot" id="([^"]+)"[^>]*></div>\s*<details class="data"><summary>', report.text)
    assert set(tables) == set(figures)


def test_curves_pass_their_threshold_where_the_throttle_records_say(
    report: Reported, figures: dict[str, dict[str, Any]]
) -> None:
    throttles = _throttles(report)
    compared = set()
    for name, figure in figures.items():
        if not name.startswith("evidence-"):
            continue
        (client, *_) = (one.record.client for one in throttles if one.incident == name.removeprefix("evidence-"))
        own = [one for one in throttles if one.record.client == client]
        marks = {trace["name"]: trace for trace in figure["data"] if trace["mode"] == "markers"}
        for level, name in enumerate(LEVELS[1:], 1):
            wanted = [one.record.trigger.rows_seen for one in own if one.level == level]
            assert marks.get(f"decision: {name}", {"x": []})["x"] == wanted
            compared |= {(client, level, row) for row in wanted}
        lines = {shape["y0"] for shape in figure["layout"]["shapes"]}
        lead = max((trace["y"] for trace in figure["data"] if trace["mode"] == "lines"), key=lambda y: y[-1] or 0)
        assert lines and max(value for value in lead if value is not None) > min(lines)
    assert len(compared) == len([one for one in throttles if one.level > 0]) > 20


def test_it_holds_everything_that_a_report_must_show_and_no_reference_to_anywhere(report: Reported) -> None:
    summary = report.outcome.summary
    for part in (summary["config_hash"], summary["artefact_hash"], "policy.mode", "client-minutes", "ordinary client"):
        assert part in report.text
    assert len(report.text.encode()) < BYTES_MAX
    plain = re.sub(r'<script type="text/plain"[^>]*>[^<]+</script>', "", report.text)
    assert "default-src 'none'" in plain
    addresses = re.findall(r'(?:src|href)="([^"]+)"', plain)
    assert [address for address in addresses if not address.startswith(("#", "data:,"))] == []


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_names_that_mean_harm_stay_text(report: Reported, figures: dict[str, dict[str, Any]]) -> None:
    parser = _Scripts()
    parser.feed(report.text)
    assert parser.tags.count("script") == 3 and "img" not in parser.tags and "i" not in parser.tags
    assert not [name for name in parser.attributes if name.startswith("on")]
    assert "&lt;img src=" in report.text and r"\u202eevil\x1b[31m" in report.text
    drawn = json.dumps(figures)
    assert "<img" not in drawn and "&lt;img" in drawn
    for text in (report.text, drawn):
        assert HARM not in text and REVERSED not in text and "\x1b" not in text


def test_the_same_contents_give_the_same_bytes(report: Reported) -> None:
    found = contents.ReportData(report.outcome.summary, [], [], [], report.outcome.spaces, ["x"])
    config = report.replayed.plan.config
    assert page(contents.contents(found, [], config)) == page(contents.contents(found, [], config))
    assert packed(b"figures") == packed(b"figures")


def test_of_an_empty_history_it_says_that_nothing_was_there(report: Reported, tmp_path: Path) -> None:
    summary = dict(report.outcome.summary)
    classes = {name: {key: 0 for key in counts} for name, counts in summary["classes"].items()}
    summary |= {"rows": 0, "clients": 0, "alerts": 0, "classes": classes}
    nothing = report.outcome._replace(events=[], summary=summary, spaces={})
    write_report(tmp_path / "report.html", report.replayed._replace(outcome=nothing))
    text = (tmp_path / "report.html").read_text()
    assert "No client caused an alert." in text and "None: no client reached a level." in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_what_analysts_judged_is_said(report: Reported, tmp_path: Path) -> None:
    alert = next(one for one in _throttles(report) if one.level >= 3)
    label = Label(
        finding_uid=alert.incident, event_uid=alert.uid, verdict="false_positive", verdict_id=1, reason="a test",
        labelled_at=datetime(2026, 1, 1, tzinfo=UTC), detectors=(alert.detector,), model=alert.model,
        client=alert.client, config_hash="", artefact_hash="",
    )  # fmt: skip
    write_report(tmp_path / "report.html", report.replayed._replace(labels={alert.incident: label}))
    assert "Analysts judged 1 incident: 1 false positive." in (tmp_path / "report.html").read_text()


def test_clients_are_held_until_the_next_decision_or_a_lift(report: Reported) -> None:
    first = _throttles(report)[0]
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def decided(revision: int, action: str, minutes: int) -> ThrottleEvent:
        begin = at + timedelta(minutes=minutes)
        record = msgspec.structs.replace(
            first.record, revision=revision, action=action, issued_at=begin, effective_at=begin,
            expires_at=begin + timedelta(hours=1), client="k", model="m",
        )  # fmt: skip
        return msgspec.structs.replace(first, record=record, client="k", model="m")

    found = enforcement.stretches([decided(1, "cap", 0), decided(2, "cap", 30), decided(3, "lift", 40)])
    assert [(one.minutes, one.limits) for one in found] == [(30.0, first.mode == "enforce"), (10.0, True)]
    assert enforcement.stretches([decided(1, "cap", 0)])[0].minutes == 60.0


@pytest.fixture(scope="module")
def story(report: Reported) -> Trace:
    """The story of a client that was alarmed."""
    key = next(event.client_key for event in report.outcome.events if event.kind == "alert")
    gathered = gather(report.replayed.plan, [key])
    (found,) = follow(report.replayed.plan.settings.newest, gathered.frames, [key]).values()
    return found


def test_embeddings_are_drawn_by_principal_axes_and_distances(report: Reported, story: Trace) -> None:
    """The same client, as if it had sent vectors: no field names, values of their own."""
    rng = np.random.default_rng(1)
    encoder = EmbeddingEncoder(384, 0.3, b"s" * 32)
    values = (rng.normal(size=(story.rows.count, encoder.dim)) * UNIT / 8).astype(np.int16)
    none = np.zeros((story.rows.count, 0), np.uint16)
    rows = story.rows._replace(values=values, fields=none, surprisal=none.astype(np.uint8))
    artefact = report.replayed.plan.artefacts.models[story.model]
    changed = dataclasses.replace(story, rows=rows, field_names=())
    embedded = type(artefact)(artefact.model, encoder, artefact.reference, 0.5, artefact.labels)
    drawn: list[PlotFigure | None] = [
        draw(TracedClient("x", changed, embedded, None)) for draw in (inputs.path, inputs.fields)
    ]
    for figure in drawn:
        assert figure is not None
        plotly.graph_objects.Figure({"data": figure.data, "layout": figure.layout})
    path, distances = drawn
    assert path is not None and "of their spread" in path.layout["xaxis"]["title"]["text"]
    assert distances is not None and len(distances.data[0]["y"]) == story.rows.count - 1


def test_an_ordinary_client_stands_beside_each_on_the_same_scale(report: Reported, story: Trace) -> None:
    subject = TracedClient("x", story, report.replayed.plan.artefacts.models[story.model], None)
    figure = evidence.comparison(subject, story)
    assert [trace["name"] for trace in figure.data] == ["this client", "an ordinary client"]
    assert figure.table.rows[0] == ("requests", f"{story.rows.count:,}", f"{story.rows.count:,}")


def test_a_summary_is_the_same_however_frames_are_cut_joined_or_stored(
    report: Reported, story: Trace, tmp_path: Path
) -> None:
    keys = [int(key) for key in report.outcome.spaces[story.space].clients]
    frames = [frame for frame in gather(report.replayed.plan, keys).frames if isinstance(frame, RowFrame)]
    whole, parts = Findings(), Findings()
    for frame in frames:
        whole.summary.add(frame)
        part = Findings()
        part.summary.add(frame)
        part.summary.flush()
        jobs._store(tmp_path / "part.zst", part)
        stored = jobs._load(tmp_path / "part.zst")
        assert stored is not None
        parts.join(stored)
    assert whole.summary.by_class([]) == parts.summary.by_class([]) and whole.summary.rows > 0
    for mine, theirs in zip(whole.summary.spaces.values(), parts.summary.spaces.values(), strict=True):
        for a, b in zip([*mine[1:6], *mine.sample], [*theirs[1:6], *theirs.sample], strict=True):
            assert np.array_equal(a, b) and a.dtype == b.dtype
    space = whole.summary.spaces[story.space]
    assert space.rows.sum() == space.busy.sum() == report.outcome.summary["rows"]
    assert 100 < len(space.sample.exact) <= SAMPLE_ROWS


def test_many_decisions_are_thinned_evenly_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "DECISIONS_DRAWN", 10)
    strict = [throttle(7 * at, 5, level=4) for at in range(3)]
    drawn = overview.timeline({}, [*strict, *(throttle(at, 5) for at in range(100))])
    marks = {trace["name"]: trace["x"] for trace in drawn.data if trace["name"].startswith("decision")}
    assert [len(marks[name]) for name in ("decision: block", "decision: soft")] == [3, 7]
    assert marks["decision: soft"][-1] > "2026-03-01T13:20", "to the end, not only the first of them"
    assert "10 of 103 decisions" in drawn.how
    assert "each decision" in overview.timeline({}, strict).how
    assert [about(count) for count in (393.4, 12, 4.56, 0.00123)] == ["393", "12", "4.6", "0.0012"]
