"""Many ways to be no good request, each with the field that its reject must name, and what becomes of it.

Every record carries planted words in its client id, prompt, label, feature names and values, and a planted number in
its embedding: none may be found in what is said about it.
"""

import base64
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests import sketching

CLIENT, PROMPT, LABEL, KEY, WORD = "planted-client", "planted-prompt", "planted-label", "planted_key", "planted-word"
NUMBER = 0.7310585786300049
PLANTED = (CLIENT, PROMPT, LABEL, KEY, WORD, "planted", str(NUMBER)[:8])

Body = dict[str, Any]


class Kind(NamedTuple):
    """make : text of one bad element. field : what the reject names. inline : may stand in an array or a line, that is,
    its brackets and quotes pair up and it is neither empty nor too large. end : see below."""

    name: str
    field: str
    make: Callable[[random.Random], bytes]
    inline: bool = True

    @property
    def end(self) -> str:
        """READ : nothing is lacking. JUDGED : without `field`. HELD : a dead letter, and a row without input. LOST : a
        dead letter."""
        if self.name in HELD_NAMES or (self in (*TIMES, *VECTORS) and self.name != "milliseconds"):
            return HELD
        return READ if self.name in READ_NAMES else LOST if self.name in LOST_NAMES else JUDGED


def body(rng: random.Random, model: str = "loan") -> Body:
    made = sketching.record(rng, 0, model)
    made |= {"client_id": f"{CLIENT}-{rng.randrange(10**6)}", "prompt": f"{PROMPT} {{[,"}
    made["output"]["label"] = LABEL
    if model == "loan":
        made["features"][KEY] = WORD
    else:
        made["embedding"][5] = NUMBER
    return made


def text(made: object) -> bytes:
    return json.dumps(made, allow_nan=True).encode()


def put(path: str, value: object, model: str = "loan") -> Callable[[random.Random], bytes]:
    """A good record with one value at a dotted path."""

    def make(rng: random.Random) -> bytes:
        made = body(rng, model)
        inner = made
        *outer, last = path.split(".")
        for name in outer:
            inner = inner[name]
        inner[last] = value
        return text(made)

    return make


def drop(name: str) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        made = body(rng)
        del made[name]
        return text(made)

    return make


def swap(old: bytes, new: bytes, model: str = "loan") -> Callable[[random.Random], bytes]:
    """The text of a good record with some bytes exchanged."""

    def make(rng: random.Random) -> bytes:
        good = text(body(rng, model))
        assert old in good
        return good.replace(old, new, 1)

    return make


def cut(share: float) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        good = text(body(rng))
        return good[: int(len(good) * share)]

    return make


def append(tail: bytes) -> Callable[[random.Random], bytes]:
    """A good record with one more member, given as text."""
    return lambda rng: text(body(rng))[:-1] + b"," + tail + b"}"


def floats(count: int, value: float = NUMBER) -> bytes:
    return np.full(count, value, "<f4").tobytes()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'"trace":' + opening * depth + b"1" + closing * depth


SYNTAX = [
    Kind("cut early", "record", cut(0.1), inline=False),
    Kind("cut in the middle", "record", cut(0.5), inline=False),
    Kind("cut late", "record", lambda rng: text(body(rng))[:-1], inline=False),
    Kind("no quote", "model", swap(b'"model"', b'"model'), inline=False),
    Kind("byte order mark", "record", lambda rng: b"\xef\xbb\xbf" + text(body(rng)), inline=False),
    Kind("single quotes", "record", lambda rng: repr({"client_id": CLIENT}).encode()),
    Kind("trailing comma", "record", lambda rng: text(body(rng))[:-1] + b",}"),
    Kind("two colons", "record", swap(b":", b"::")),
    Kind("bare word", "record", lambda rng: PROMPT.encode()),
    Kind("logfmt", "record", lambda rng: f"client={CLIENT} prompt={PROMPT}".encode()),
    Kind("control byte", "record", swap(PROMPT.encode(), b"a\x01" + PROMPT.encode())),
    Kind("two objects", "record", lambda rng: text(body(rng)) + b" " + text(body(rng))),
    Kind("leading zero", "record", append(b'"latency_ms":007')),
    Kind("a string", "record", lambda rng: text(PROMPT)),
    Kind("a number", "record", lambda rng: text(NUMBER)),
    Kind("null", "record", lambda rng: b"null"),
    Kind("true", "record", lambda rng: b"true"),
    Kind("binary", "record", lambda rng: b"\x00\x01\x02" + rng.randbytes(20).translate(None, b'"\n{}[],') + b"\xff"),
]
TYPES = [
    *(Kind(f"no {name}", name, drop(name)) for name in ("ts", "request_id", "client_id", "model")),
    *(Kind(f"null {name}", name, put(name, None)) for name in ("ts", "request_id", "client_id", "model")),
    Kind("ts boolean", "ts", put("ts", True)),
    Kind("ts object", "ts", put("ts", {KEY: 1})),
    Kind("ts words", "ts", put("ts", WORD)),
    Kind("request_id number", "request_id", put("request_id", 5)),
    Kind("client_id list", "client_id", put("client_id", [CLIENT])),
    Kind("client_id empty", "client_id", put("client_id", "")),
    Kind("model number", "model", put("model", 7)),
    Kind("features list", "features", put("features", [WORD])),
    Kind("features text", "features", put("features", WORD)),
    Kind("known feature nested", "features.income", put("features.income", {KEY: WORD})),
    Kind("known feature list", "features.purpose", put("features.purpose", [WORD])),
    Kind("unknown feature nested", "features", put(f"features.{KEY}", {KEY: WORD})),
    Kind("text for a number", "features.income", put("features.income", WORD)),
    Kind("embedding number", "embedding", put("embedding", NUMBER, "faces")),
    Kind("embedding of texts", "embedding[0]", put("embedding", [WORD], "faces")),
    Kind("embedding with null", "embedding[1]", put("embedding", [1.0, None], "faces")),
    Kind("embedding nested", "embedding[0]", put("embedding", [[NUMBER]], "faces")),
    Kind("embedding without data", "embedding.data", put("embedding", {"dim": 64}, "faces")),
    Kind("embedding data number", "embedding.data", put("embedding", {"data": NUMBER}, "faces")),
    Kind("embedding dim text", "embedding.dim", put("embedding", {"data": [NUMBER], "dim": WORD}, "faces")),
    Kind("output text", "output", put("output", LABEL)),
    Kind("label boolean", "output.label", put("output.label", True)),
    Kind("label list", "output.label", put("output.label", [LABEL])),
    Kind("score text", "output.score", put("output.score", WORD)),
    Kind("scores list", "output.scores", put("output.scores", [1])),
    Kind("scores of texts", "output.scores", put("output.scores", {KEY: WORD})),
    Kind("refused text", "output.refused", put("output.refused", WORD)),
    Kind("class unknown", "client_class", put("client_class", WORD)),
    Kind("class forged", "client_class", put("client_class", f"' - at `$.model` {WORD}")),
    Kind("operation number", "operation", put("operation", 5)),
    Kind("tokens negative", "tokens_in", put("tokens_in", -1)),
    Kind("tokens fraction", "tokens_out", put("tokens_out", 1.5)),
    Kind("tokens many", "tokens_in", put("tokens_in", 2**40)),
]
NUMBERS = [
    Kind("NaN score", "output.score", put("output.score", float("nan"))),
    Kind("NaN feature", "features.income", put("features.income", float("nan"))),
    Kind("infinite feature", "features", put(f"features.{KEY}", float("inf"))),
    Kind("infinite embedding", "embedding", put("embedding", [float("-inf")] * 64, "faces")),
    Kind("NaN elsewhere", "record", put("latency", float("nan"))),
    Kind("score too long", "output.score", swap(b'"score": 0.', b'"score": 1' + b"0" * 5000 + b".")),
    Kind("score beyond floats", "output.score", swap(b'"score": 0.', b'"score": 1e999, "x": 0.')),
    Kind("score beyond float32", "output.score", put("output.score", -1e39)),
    Kind("scores beyond float32", "output.scores", put("output", {"scores": {KEY: 3e38, WORD: -3e38}})),
    Kind("feature beyond floats", "features", swap(b'"income": ', b'"income": 1e400, "x": ')),
    Kind("label too large", "output.label", put("output.label", 2**70)),
    Kind("label very large", "output.label", swap(f'"{LABEL}"'.encode(), b"9" * 6000)),
    Kind("label too long", "output.label", put("output.label", LABEL * 100)),
    Kind("client_id too long", "client_id", put("client_id", CLIENT * 1000)),
    Kind("request_id too long", "request_id", put("request_id", WORD * 1000)),
    Kind("model too long", "model", put("model", WORD * 1000)),
    Kind("record too large", "record", put("prompt", PROMPT * 9_000), inline=False),
]
TIMES = [
    Kind("before the window", "ts", put("ts", "1999-12-31T23:59:59.999Z")),
    Kind("the window's end", "ts", put("ts", "2100-01-01T00:00:00Z")),
    Kind("year 9999 at an edge", "ts", put("ts", "9999-12-31T23:59:59-23:00")),
    Kind("year 1 at an edge", "ts", put("ts", "0001-01-01T00:00:00+23:00")),
    Kind("zero", "ts", put("ts", 0)),
    Kind("milliseconds", "ts", put("ts", 1740823200123)),
    Kind("huge", "ts", put("ts", 1e300)),
    Kind("very negative", "ts", put("ts", -1e308)),
    Kind("no offset", "ts", put("ts", "2025-03-01T10:00:00")),
    Kind("no such day", "ts", put("ts", "2025-02-30T10:00:00Z")),
    Kind("leap second", "ts", put("ts", "2016-12-31T23:59:60Z")),
    Kind("only a day", "ts", put("ts", "2025-03-01")),
]
VECTORS = [
    *(Kind(f"{n} numbers", "embedding", put("embedding", [NUMBER] * n, "faces")) for n in (0, 1, 63, 65, 384)),
    *(Kind(f"base64 of {n}", "embedding", put("embedding", b64(floats(n)), "faces")) for n in (0, 63, 65)),
    Kind("base64 of 255 bytes", "embedding", put("embedding", b64(floats(64)[:-1]), "faces")),
    Kind("base64 cut off", "embedding", put("embedding", b64(floats(64))[:-3], "faces")),
    Kind("base64 cut at a group", "embedding", put("embedding", b64(floats(64))[:-8], "faces")),
    Kind("no base64", "embedding", put("embedding", WORD, "faces")),
    Kind("base64 url alphabet", "embedding", put("embedding", "_-" * 171 + "==", "faces")),
    Kind("base64 of NaN", "embedding", put("embedding", b64(floats(64, float("nan"))), "faces")),
    Kind("base64 of infinity", "embedding", put("embedding", b64(floats(64, float("inf"))), "faces")),
    Kind("all zero", "embedding", put("embedding", [0.0] * 64, "faces")),
    Kind("beyond float32", "embedding", put("embedding", [1e39, *[NUMBER] * 63], "faces")),
    Kind("pgvector of 63", "embedding", put("embedding", str([NUMBER] * 63), "faces")),
    Kind("pgvector cut off", "embedding", put("embedding", str([NUMBER] * 64)[:-1], "faces")),
    Kind("pgvector of words", "embedding", put("embedding", f"[{WORD}]", "faces")),
    Kind("object dim lies", "embedding.data", put("embedding", {"dim": 64, "data": [NUMBER] * 63}, "faces")),
    Kind("object dim", "embedding", put("embedding", {"dim": 63, "data": [NUMBER] * 63}, "faces")),
    Kind("object hex", "embedding.encoding", put("embedding", {"encoding": "hex", "data": WORD}, "faces")),
    Kind("object float64", "embedding.dtype", put("embedding", {"dtype": "float64", "data": [NUMBER] * 64}, "faces")),
    Kind("object no base64", "embedding.data", put("embedding", {"encoding": "base64", "data": WORD}, "faces")),
]
UNICODE = [
    Kind("bytes in client_id", "client_id", swap(CLIENT.encode(), CLIENT.encode() + b"\xff\xfe")),
    Kind("bytes in a label", "output.label", swap(LABEL.encode(), b"\xc3(" + LABEL.encode())),
    Kind("bytes in a feature", "features", swap(WORD.encode(), b"\xed\xa0\x80" + WORD.encode())),
    Kind("bytes in a feature's name", "features", swap(KEY.encode(), b"\x80" + KEY.encode())),
    Kind("lone surrogate", "client_id", swap(CLIENT.encode(), rb"\udfff" + CLIENT.encode())),
    Kind("latin-1", "request_id", swap(b"r-0", "Müller".encode("latin-1"))),
    Kind("UTF-16", "record", lambda rng: text(body(rng)).decode().encode("utf-16"), inline=False),
]
DEEP = [
    *(Kind(f"{depth} deep", "record", append(nested(depth))) for depth in (600, 990, 20_000)),
    Kind("objects deep", "record", append(nested(700, b'{"a":', b"}"))),
    Kind("mixed deep", "record", append(nested(400, b'[{"a":', b"}]"))),
    Kind(
        "features deep",
        "features",
        swap(b'"features": {', b'"features": {"a":' + b'{"a":' * 99 + b"1" + b"}" * 99 + b","),
    ),
    Kind("only brackets", "record", lambda rng: b"{" * 5_000, inline=False),
    Kind("deep and open", "record", lambda rng: text(body(rng))[:-1] + b',"a":' + b"[" * 5_000, inline=False),
]

READ, JUDGED, HELD, LOST = "read", "judged", "held", "lost"
READ_NAMES = {"no request_id", "null request_id", "request_id number", "milliseconds", "byte order mark"}
HELD_NAMES = {
    "cut in the middle", "cut late", "no quote", "no ts", "null ts", "ts boolean", "ts object", "ts words",
    "no model", "null model", "model number", "model too long", "features list", "features text", "infinite embedding",
    *(kind.name for kind in TYPES if kind.name.startswith("embedding")),
}  # fmt: skip
LOST_NAMES = {
    "cut early", "single quotes", "two colons", "bare word", "logfmt", "a string", "a number", "null",
    "true", "binary", "no client_id", "null client_id", "client_id list", "client_id empty", "UTF-16", "only brackets",
}  # fmt: skip

KINDS = [*SYNTAX, *TYPES, *NUMBERS, *TIMES, *VECTORS, *UNICODE, *DEEP]
