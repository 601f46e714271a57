"""Rejects and dead letters: what they say, and which bytes travel."""

import json
import random

from streams.adapters import native
from streams.wire.rejects import WHOLE_RECORD, Record, Reject, dead_letters, refused
from tests import sketching

REJECT = Reject("gateway-logs", 3, 18842, 0, "embedding", "384 numbers (embedding.dim)", "383 of them", "input")


def test_the_message_names_place_field_expected_and_got() -> None:
    assert REJECT.message == ("gateway-logs[3]@18842: embedding: expected 384 numbers (embedding.dim); got 383 of them")
    element = Reject("gateway-logs", 3, 18842, 7, "ts", "a time", "nothing", "missing")
    assert element.message == "gateway-logs[3]@18842#7: ts: expected a time; got nothing"
    whole = Reject("gateway-logs", 3, 18842, WHOLE_RECORD, "record", "less", "more", "size")
    assert whole.message == "gateway-logs[3]@18842: record: expected less; got more"


def test_a_dead_letter_keeps_the_record_and_says_why_in_headers() -> None:
    record = Record(b"key", b"{}", [("traceparent", b"00-1")])
    [letter] = dead_letters([REJECT], {18842: record}, native.elements)
    assert (letter.key, letter.value, letter.rejects) == (b"key", b"{}", [REJECT])
    assert letter.headers == [
        ("traceparent", b"00-1"),
        ("__streams.errors.exception", b"probewatch.reject.input"),
        ("__streams.errors.message", REJECT.message.encode()),
        ("__streams.errors.topic", b"gateway-logs"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"18842"),
        (
            "probewatch-faults",
            b'[{"index":0,"field":"embedding","expected":"384 numbers (embedding.dim)","got":"383 of them",'
            b'"reason":"input"}]',
        ),
    ]


def test_of_several_rows_only_the_bad_ones_travel_and_can_be_sent_again() -> None:
    rng = random.Random(1)
    good = [json.dumps(sketching.record(rng, n)).encode() for n in range(3)]
    bad = [b'{"ts":1}', b"{'x'}"]
    array = b"[" + b" , ".join([good[0], bad[0], good[1], bad[1], good[2]]) + b"]"
    lines = b"\n".join([bad[0], good[0], bad[1]])
    raws = [sketching.raw(5, array), sketching.raw(9, None), sketching.raw(11, lines)]
    result = sketching.build_sketcher().frames("t", 0, "0", raws, 12)
    assert len(sketching.request_ids(result.frames)) == 4
    assert result.unjudged == {"empty_record": 1}
    records = {raw.offset: Record(raw.key, raw.value, raw.headers) for raw in raws}
    letters = dead_letters(result.rejects, records, native.elements)
    assert [letter.value for letter in letters] == [b"\n".join(bad), b"\n".join(bad)]
    assert dict(letters[0].headers)["probewatch-lengths"] == b"[8,5]"
    message = dict(letters[0].headers)["__streams.errors.message"].decode()
    assert message == f"{result.rejects[0].message}; and 1 more rows"
    told = [refused(dict(letter.headers), letter.value) for letter in letters]
    assert [reject for letter in told for reject, _ in letter] == result.rejects
    assert [element for letter in told for _, element in letter] == [*bad, *bad]
    assert [(r.offset, r.index) for r in result.rejects] == [(5, 1), (5, 3), (11, 0), (11, 2)]


def test_a_record_refused_whole_travels_whole() -> None:
    config = sketching.Config(input={"max_rows": 2})
    value = b"[" + b",".join([b"{}"] * 3) + b"]"
    raw = sketching.raw(5, value)
    [reject] = sketching.build_sketcher(config).frames("t", 0, "0", [raw], 12).rejects
    assert reject.message == "t[0]@5: record: expected at most 2 rows (input.max_rows); got 3 rows"
    [letter] = dead_letters([reject], {5: Record(raw.key, raw.value, raw.headers)}, native.elements)
    assert letter.value == value
