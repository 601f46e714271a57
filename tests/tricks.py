"""Ways to write a request so that a model still answers it and a reader may stumble: flaw x order of members x message.

Only what a client can bring about through a gateway that escapes its quotes: values, sizes, names, never its syntax.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Body = dict[str, Any]
RAW = "\x00"
"""Stands before text that is no JSON string but goes into the record as it is: NaN, 007."""


class Trick(NamedTuple):
    """flaw : a record's body, and its number, to the body or the text of the request. first : the flawed member comes
    before all others. form : see FORMS."""

    kind: str
    name: str
    flaw: Callable[[Body, int], Body | bytes]
    first: bool
    form: str

    @property
    def label(self) -> str:
        return f"{self.kind}: {self.name}, {'first' if self.first else 'last'}, {self.form}"

    def message(self, body: Body, number: int, neighbours: tuple[bytes, bytes]) -> bytes:
        """The message of one request. neighbours : records of other clients, for forms that hold several."""
        changed = self.flaw(json.loads(json.dumps(body)), number)
        if isinstance(changed, dict):
            names = [name for name in changed if name not in body or changed[name] != body[name]]
            kept = {name: item for name, item in changed.items() if name not in names}
            flawed = {name: changed[name] for name in names}
            changed = written(flawed | kept if self.first else kept | flawed)
        return FORMS[self.form](changed, neighbours)


def written(body: Body) -> bytes:
    text = json.dumps(body)
    for part in text.split('"\\u0000')[1:]:
        raw = part.partition('"')[0]
        text = text.replace(f'"\\u0000{raw}"', raw, 1)
    return text.encode()


FORMS: dict[str, Callable[[bytes, tuple[bytes, bytes]], bytes]] = {
    "alone": lambda text, near: text,
    "in an array": lambda text, near: b"[" + near[0] + b"," + text + b"," + near[1] + b"]",
    "between lines": lambda text, near: near[0] + b"\n" + text + b"\n" + near[1] + b"\n",
    "array a line": lambda text, near: b"[" + near[0] + b"]\n[" + text + b"]\n[" + near[1] + b"]",
}


def put(path: str, *values: object) -> Callable[[Body, int], Body]:
    """One value at a dotted path, several by turns."""

    def flaw(body: Body, number: int) -> Body:
        *outer, last = path.split(".")
        inner = body
        for name in outer:
            inner = inner[name]
        inner[last] = values[number % len(values)]
        return body

    return flaw


def swept(make: Callable[[Any], object]) -> Callable[[Body, int], Body]:
    """Every number of the features written otherwise."""

    def flaw(body: Body, number: int) -> Body:
        for name, value in body["features"].items():
            body["features"][name] = value if isinstance(value, str) else make(value)
        return body

    return flaw


def camel(body: Body, number: int) -> Body:
    body["features"] = {f"{name}Value": value for name, value in body["features"].items()}
    return body


def turned(body: Body, number: int) -> Body:
    return body | {"features": dict(reversed(body["features"].items())), "operation": "x"}


def nonce(make: Callable[[int], object]) -> Callable[[Body, int], Body]:
    def flaw(body: Body, number: int) -> Body:
        body["features"]["nonce"] = make(number)
        return body

    return flaw


def without(name: str) -> Callable[[Body, int], Body]:
    return lambda body, number: {key: item for key, item in body.items() if key != name}


def text_of(change: Callable[[bytes], bytes]) -> Callable[[Body, int], bytes]:
    return lambda body, number: change(written(body))


def prompting(text: bytes, more: bytes) -> bytes:
    return text.replace(b'"prompt": "', b'"prompt": "' + more)


DEEP = f"{RAW}{'[' * 600}{']' * 600}"
BAD: dict[str, object] = {
    "a list": [1], "an object": {"a": 1}, "NaN": f"{RAW}NaN", "Infinity": f"{RAW}-Infinity", "1e999": f"{RAW}1e999",
    "half a pair": f"{RAW}\\ud800", "600 brackets": DEEP, "007": f"{RAW}007", "true": True, "null": None,
}  # fmt: skip
BAD["half a pair"] = "\ud800"
FLAWS: list[tuple[str, str, Callable[[Body, int], Body | bytes]]] = [
    *(("an extra feature", name, put("features.extra", value)) for name, value in BAD.items()),
    ("an extra feature", "another number each time", nonce(float)),
    ("an extra feature", "another text each time", nonce(str)),
    ("an extra feature", "another list each time", nonce(lambda number: [number])),
    *(("a number of the table", name, put("features.age", value)) for name, value in BAD.items()),
    ("a number of the table", "text", put("features.age", "old")),
    ("a number of the table", "empty text", put("features.age", "")),
    ("a number of the table", "all in quotes", swept(str)),
    ("a number of the table", "all in quotes with spaces", swept(lambda value: f" {value} ")),
    *(("a category of the table", name, put("features.purpose", value)) for name, value in list(BAD.items())[:5]),
    ("all features", "renamed", camel),
    ("all features", "in another order", turned),
    *(("all features", name, put("features", value)) for name, value in (
        ("an empty object", {}), ("a list", [1, 2]), ("a text", '{"income": 1}'), ("null", None), ("a number", 5),
    )),
    *(("the answer", name, put(f"output.{path}", value)) for name, path, value in (
        ("label true", "label", True), ("label a list", "label", ["x"]), ("label of 300 letters", "label", "x" * 300),
        ("label of 70 bits", "label", 2**70), ("score NaN", "score", f"{RAW}NaN"), ("score text", "score", "high"),
        ("score 1e300", "score", 1e300), ("scores a list", "scores", [1]), ("refused text", "refused", "no"),
        ("half a pair", "label", "\ud800"),
    )),
    ("the answer", "a list", put("output", [1])),
    *(("an optional field", f"{name} {value!r:.12}", put(name, value)) for name, value in (
        ("tokens_in", -1), ("tokens_in", 1.5), ("tokens_out", 2**40), ("tokens_out", "many"), ("tokens_in", True),
        ("client_class", "king"), ("client_class", 5), ("operation", 5), ("operation", "unheard-of"),
        ("operation", ["explain"]),
    )),
    *(("the request id", f"{value!r:.12}", put("request_id", value))
        for value in ("", None, 5, "x" * 513, [1], "\ud800")),
    ("the request id", "none", without("request_id")),
    ("the model", "in capitals", put("model", "LOAN")),
    *(("the model", f"{value!r:.12}", put("model", value)) for value in ("loan-v2", None, 5, "x" * 513, "")),
    ("the time", "in quotes", lambda body, number: body | {"ts": str(body["ts"])}),
    ("the time", "milliseconds", lambda body, number: body | {"ts": int(1_000 * body["ts"])}),
    ("the time", "nanoseconds", lambda body, number: body | {"ts": int(1e9 * body["ts"])}),
    *(("the time", f"{value!r:.12}", put("ts", value)) for value in ("yesterday", None, True, 0, f"{RAW}NaN")),
    *(("a field that is not read", name, put("prompt", value)) for name, value in BAD.items()),
    ("a field that is not read", "a megabyte", put("prompt", "x" * 1_000_100)),
    ("a field that is not read", "a forged record", put("prompt", '"},{"client_id":"victim","ts":1},{"')),
    ("the text", "byte order mark", text_of(lambda text: b"\xef\xbb\xbf" + text)),
    ("the text", "bytes that are no UTF-8", text_of(lambda text: text.replace(b'"prompt": "', b'"prompt": "\xff\xfe'))),
    ("the text", "a control character", text_of(lambda text: text.replace(b'"prompt": "', b'"prompt": "\x01'))),
    ("the text", "a wrong escape", text_of(lambda text: prompting(text, rb"\x41"))),
    ("the text", "cut off", text_of(lambda text: text[:-9])),
]  # fmt: skip
ONE_OF_A_KIND = {"a megabyte": ("alone",), "byte order mark": ("alone",), "cut off": ("alone", "between lines")}
"""Forms in which a flaw means something: a message is bounded as a whole, and a mark stands at its beginning."""


def tricks() -> Iterator[Trick]:
    """The whole family."""
    for kind, name, flaw in FLAWS:
        for form in ONE_OF_A_KIND.get(name, FORMS):
            for first in (False, True) if kind != "the text" else (False,):
                yield Trick(kind, name, flaw, first, form)
