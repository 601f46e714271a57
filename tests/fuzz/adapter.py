"""Fuzz target: any bytes as a message of a raw topic, through the adapter, the sketch and the frames they become."""

import re

import msgspec

from models.rows import FLAG_UNJUDGED
from streams.adapters import native
from streams.adapters.request import EXPECTED, Request, Salvaged
from streams.sketch.sketcher import RawRecord
from streams.wire import frames
from streams.wire.frames import FrameError
from streams.wire.rejects import Fault, Record, dead_letters, refused
from tests.fuzz import world
from tests.sketching import decoded

GOT = re.compile(
    r"nothing|more|an empty one|(a longer|another|an earlier|a later) one"
    r"|(an?|the) (whole )?(number|string|object|array)"
    r"|a (smaller|larger) number|another (string|encoding|type)|true or false|null|text|something else|one beyond them"
    r"|a number beyond 64-bit floats|a time without an offset|NaN or infinity|other text from byte \d+ on"
    r"|text that (is not Unicode|ends too early|is no base64, or is cut off)"
    r"|\d+ (of them|rows( in \d+ bytes)?|bytes(, not a multiple of 4)?|more that could not be read)"
)
"""All that a reject may say it got: nothing of what stood there."""

LETTER_BYTES = 8_192
"""What headers may take: place, and FAULTS_TOLD explanations."""

FEATURES = frozenset(("income", "purpose"))
PLACE = re.compile(r"record|features\.(income|purpose)|[a-z_]+(\.[a-z_]+)?(\[\d+\])?")


def check(value: bytes) -> None:
    found = decoded(value, FEATURES)
    texts = native.elements(value)
    assert len(found) == len(texts), "an element without a result"
    for text, item in zip(texts, found, strict=True):
        _check_fault(item) if isinstance(item, Fault) else _check_request(item, text)
    _check_sketch(value, len(found))
    if value[:1] == b"{" and len(found) == len(native.elements(b"[" + value + b"]")) == 1:
        _check_alone(value)


def _check_fault(fault: Fault) -> None:
    assert PLACE.fullmatch(fault.field) and _known(fault.field), fault.field
    assert GOT.fullmatch(fault.got), fault.got
    assert fault.expected and fault.expected.isprintable()


def _known(field: str) -> bool:
    name = field.split("[")[0]
    return name in EXPECTED or name == "record" or name.removeprefix("features.") in FEATURES


def _check_request(request: Request, text: bytes) -> None:
    """What was read is read again, from the text and from what it says."""
    assert native.decode(text, (), FEATURES) == request
    if isinstance(request, Salvaged):
        assert request.client_id and (request.unread or request.lost)
        if request.lost is not None:
            _check_fault(request.lost)
    else:
        assert native.decode_one(msgspec.json.encode(request)) == request


def _check_sketch(value: bytes, count: int) -> None:
    """Each element becomes a row, or a reject if it names no client; alone in its message or not."""
    record = RawRecord(7, value, b"key", (), -1)
    result = world.sketcher().frames("gateway-logs", 3, "0", [record], 12)
    rows = sum(frame.rows.count for frame in result.frames)
    whole = any(reject.index < 0 for reject in result.rejects)
    refused_rows = sum(reject.count for reject in result.rejects)
    passed = result.unjudged["empty_record"]
    assert whole or rows <= count <= rows + refused_rows + passed
    assert sum(result.unjudged.values()) <= rows
    for reject in result.rejects:
        assert GOT.fullmatch(reject.got), reject.got
        assert (reject.topic, reject.partition, reject.offset) == ("gateway-logs", 3, 7)
    letters = dead_letters(result.rejects, {7: Record(record.key, value, ())}, native.elements)
    assert len(letters) == bool(result.rejects)
    for letter in letters:
        size = len(letter.value or b"") + sum(len(name) + len(text) for name, text in letter.headers)
        assert size <= 2 * len(value) + LETTER_BYTES, "a dead letter is much longer than its record"
        assert len(refused(dict(letter.headers), letter.value)) == sum(reject.count for reject in result.rejects)
    for frame in result.frames:
        assert sum(column.nbytes for column in frame.rows) < 600 * frame.rows.count + 16 * len(value)
        try:
            back = frames.decode(frames.encode(frame), frame.partition, frame.offset)
        except FrameError as error:
            raise AssertionError("our own frame is refused") from error
        assert [column.tobytes() for column in back.rows] == [column.tobytes() for column in frame.rows]  # type: ignore[union-attr]


def _check_alone(value: bytes) -> None:
    """A record says the same alone, where it is read quickly, as in an array, where it is read carefully."""
    alone, among = (
        world.sketcher().frames("gateway-logs", 3, "0", [RawRecord(7, text, None, (), -1)], 12)
        for text in (value, b"[" + value + b"]")
    )
    assert [(reject.field, reject.reason) for reject in alone.rejects] == [
        (reject.field, reject.reason) for reject in among.rejects
    ]
    assert alone.unjudged == among.unjudged and len(alone.frames) == len(among.frames)
    for one, other in zip(alone.frames, among.frames, strict=True):
        judged = one.rows.flags & FLAG_UNJUDGED == 0
        for name, column in one.rows._asdict().items():
            again = getattr(other.rows, name)
            if name == "exact":  # of what cannot be judged a hash of the text, which may lack its bracket
                column, again = column[judged], again[judged]
            assert column.tobytes() == again.tobytes(), name
