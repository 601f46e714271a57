"""Hostile strings in everything that a record may carry: none reaches a terminal, a label or the name of a file."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from detector import engine
from detector.calibrate.certificate_text import page
from detector.events.escape import json_bytes, printable
from detector.events.finding import Event
from detector.events.wording import explain
from streams import cli, terminal
from streams.adapters import native
from streams.sketch.sketcher import RawRecord
from streams.wire.rejects import PREFIXES, Record, dead_letters
from streams.worker.app import PrintableFormatter
from tests import malformed, sketching
from tests.findings import finding
from tests.fuzz import world
from tests.hostile import ALL, MARKUP, NASTY, attack, is_plain
from tests.pipeline import Calibrated


def raws(lines: list[dict[str, Any]]) -> list[RawRecord]:
    return [sketching.raw(offset, json.dumps(line).encode()) for offset, line in enumerate(lines)]


def judged(lines: list[dict[str, Any]]) -> list[Event]:
    """Through sketch and judge, at thresholds that anything crosses."""
    result = world.sketcher().frames("gateway-logs", 3, "0", raws(lines), 1)
    assert not result.rejects and not result.unjudged
    state = engine.open_partition(world.settings(), 0)
    return [event for frame in result.frames for event in engine.step(state, world.placed(frame, 0))]


@pytest.mark.parametrize("name", NASTY)
def test_events_are_plain_bytes_and_keep_what_they_quote(name: str) -> None:
    events = judged(attack(NASTY[name]))
    assert {event.kind for event in events} >= {"throttle", "alert"}
    quoted = set()
    for event in events:
        assert is_plain(event.value.decode(), "") and not set(MARKUP) & set(event.value.decode())
        assert is_plain(event.key.decode(), "") and all(is_plain(text.decode()) for _, text in event.headers)
        said = json.loads(event.value)
        if event.kind == "throttle":
            quoted.add(said["trigger"]["request_id"])
            continue
        told = [said["message"], said["finding_info"]["title"], said["finding_info"]["desc"]]
        assert all(is_plain(text, "") for text in told)
        assert said["observables"][1]["value"] in quoted
    ids = {line["request_id"] for line in attack(NASTY[name])}
    assert quoted and quoted <= ids  # whoever looks one up in the gateway's log finds it


def test_words_for_people_hold_no_control_of_their_terminal() -> None:
    told = explain(finding(model=f"loan{ALL}", reason=ALL, contributions=((ALL, 9_000),)))
    assert all(is_plain(line, "") for line in told) and "\\x1b[31m" in told.title


@pytest.mark.parametrize("text", [*NASTY.values(), ALL, "Zoë 漢字 🙂", "plain"])
def test_json_is_the_same_json(text: str) -> None:
    written = json_bytes({text: [text, {"x": text}]})
    assert json.loads(written) == {text: [text, {"x": text}]}
    assert is_plain(written.decode(), "") and not set(MARKUP) & set(written.decode())
    assert is_plain(printable(text), "") and (printable(text) == text) == text.isprintable()


def test_letters_of_any_language_stay_readable() -> None:
    assert json_bytes(["Zoë 漢字"]) == '["Zoë 漢字"]'.encode()
    assert printable("Zoë 漢字\n", "\n") == "Zoë 漢字\n"


@pytest.mark.parametrize("kind", malformed.KINDS, ids=lambda kind: kind.name)
def test_dead_letters_say_nothing_of_what_stood_there(kind: malformed.Kind) -> None:
    """Every kind of bad record, its planted words made of escape sequences."""
    text = kind.make(random.Random(1)).replace(b"planted", json.dumps(ALL)[1:-1].encode())
    result = world.sketcher().frames("gateway-logs", 3, "0", [sketching.raw(5, text)], 12)
    letters = dead_letters(result.rejects, {5: Record(b"k", text, ())}, native.elements)
    for letter in letters:
        assert all(value.isascii() and is_plain(value.decode(), "") for _, value in letter.headers)
        assert not set(MARKUP) & set("".join(reject.message for reject in letter.rejects))


def test_a_record_cannot_bring_headers_of_a_dead_letter() -> None:
    forged = [("__streams.errors.message", ALL.encode()), ("probewatch-field", b"x" * 4_000_000), ("traceparent", b"1")]
    record = RawRecord(5, b"{", None, forged, -1)
    (reject,) = world.sketcher().frames("gateway-logs", 3, "0", [record], 12).rejects
    (letter,) = dead_letters([reject], {5: Record(None, b"{", forged)}, native.elements)
    ours = [(name, value) for name, value in letter.headers if name.startswith(PREFIXES)]
    assert letter.headers == [("traceparent", b"1"), *ours]
    assert len(dict(ours)) == len(ours) == 6 and sum(len(value) for _, value in ours) < 500


def test_tables_and_sentences_of_commands_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show([{"model": ALL, "markup": "[bold red]x[/]"}], False)
    terminal.say(f"{ALL}\nsecond line")
    terminal.show([{"model": ALL}], True)
    out, err = capsys.readouterr()
    assert is_plain(out) and is_plain(err) and "[bold red]x[/]" in out
    assert err.endswith("\nsecond line\n")


def test_log_lines_of_libraries_are_plain() -> None:
    record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "refused: %s", (ALL,), None)
    assert is_plain(PrintableFormatter("%(levelname)s %(name)s: %(message)s").format(record))


def test_a_certificate_is_plain(fitted: Calibrated) -> None:
    assert fitted.artefacts.certificate is not None
    certificate = msgspec.structs.replace(fitted.artefacts.certificate, spaces=(f"loan`{ALL}@0123",), warnings=(ALL,))
    text = page(certificate)
    assert is_plain(text) and text.splitlines()[2].count("`") == 2


def test_replay_of_files_with_hostile_names_and_lines(tmp_path: Path, fitted: Calibrated) -> None:
    folder, out = tmp_path / "history", tmp_path / "out"
    folder.mkdir()
    name = "a\x1b[31m\u202e[red]<b>.jsonl"
    lines = [json.dumps(line).encode() for line in attack(ALL)]
    placed = lines[0][:-1] + b',"_kafka":{"topic":"a\\u001b[2J","partition":0,"offset":99999999999999999999999}}'
    (folder / name).write_bytes(b"\n".join([*lines, placed, b'{"client_id":"\x1b[2J"}', b"\x1b]52;c;eA==\x07"]))
    (folder / b"b\xff\xfe.jsonl".decode("utf-8", "surrogateescape")).write_bytes(b"[]\n{}\n")
    arguments = ["replay", str(folder), "--out", str(out), "--artefacts", str(fitted.folder), "--plain-clients"]
    ran = CliRunner().invoke(cli.app, arguments)
    assert ran.exit_code == 0, ran.output
    assert is_plain(ran.output)
    written = {path.name for path in out.iterdir()}
    told = {"alerts.jsonl", "throttle.jsonl", "drift.jsonl", "rejects.jsonl", "summary.json"}
    assert written == told | {"report.html"}
    report = (out / "report.html").read_text()
    assert "&lt;img src=x onerror" in report and "<img src=x" not in report and "\x1b" not in report
    for path in map(out.joinpath, told):
        text = path.read_text()
        assert is_plain(text)
        for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
            json.loads(line)
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == 3 and {reject["topic"] for reject in rejects} == {name, "b\\udcff\\udcfe.jsonl"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rows"] == len(lines) + 2 and summary["alerts"] > 0


def test_errors_about_hostile_names_are_plain(tmp_path: Path) -> None:
    for source in (f"{tmp_path}/{NASTY['title'].replace('/', '')}.jsonl", f"kafka://h/t?from={NASTY['clipboard']}"):
        ran = CliRunner().invoke(cli.app, ["replay", source, "--out", str(tmp_path / "out")])
        assert ran.exit_code == 2 and is_plain(ran.output)
