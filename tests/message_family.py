"""Messages that are dear to read, of any length: each kind makes one of about so many bytes."""

import base64
import json
import random
from collections.abc import Callable

from tests import sketching

Kind = Callable[[int], bytes]

RNG = random.Random(4)
GOOD = sketching.record(RNG, 1)
TEXT = json.dumps(GOOD).encode()
HEAD = TEXT[:-1]
SHORT = b'{"ts":1740823200,"request_id":"r","client_id":"c","model":"loan"}'
INDENTED = json.dumps(GOOD, indent=1).encode()


def array(element: bytes) -> Kind:
    return lambda size: b"[" + b",".join([element] * (size // (len(element) + 1))) + b"]"


def lines(element: bytes) -> Kind:
    return lambda size: b"\n".join([element] * (size // (len(element) + 1)))


def member(opened: bytes, unit: bytes, closed: bytes = b"") -> Kind:
    """A good record with one more member, filled with `unit`."""
    return lambda size: HEAD + b"," + opened + unit * (size // len(unit)) + closed + b"}"


def listed(name: bytes, unit: bytes, last: bytes = b"0") -> Kind:
    return member(b'"' + name + b'":[', unit + b",", last + b"]")


def changed(kind: Kind, old: bytes, new: bytes) -> Kind:
    return lambda size: kind(size).replace(old, new)


def numbered(opened: bytes, value: bytes, closed: bytes = b"}") -> Kind:
    """A good record with an object of many members, each with a name of its own."""

    def made(size: int) -> bytes:
        members = (b'"f%d":%b' % (n, value) for n in range(size // (len(value) + 9)))
        return HEAD + b"," + opened + b",".join(members) + closed + b"}"

    return made


def alternating(*elements: bytes) -> Kind:
    return lambda size: b"[" + b",".join(elements * (size // sum(len(one) + 1 for one in elements))) + b"]"


def floats(size: int) -> bytes:
    return base64.b64encode(b"\0\0\x80?" * (size // 6))


BAD_TS, BAD_LABEL = HEAD + b',"ts":"x"}', HEAD + b',"output":{"label":true}}'
NAN, LATE = HEAD + b',"output":{"score":NaN}}', HEAD + b',"ts":4200000000}'
KINDS: dict[str, Kind] = {
    "zeros": array(b"0"),
    "empty arrays": array(b"[]"),
    "empty objects": array(b"{}"),
    "empty strings": array(b'""'),
    "nothing between commas": array(b""),
    "words": array(b"nope"),
    "arrays of zeros": array(b"[0,0,0,0]"),
    "NDJSON of empty objects": lines(b"{}"),
    "NDJSON of half objects": lines(b"{"),
    "NDJSON of strings": lines(b'{"":""}'),
    "blank lines": lambda size: b"\n" * size,
    "blank lines with spaces": lambda size: b" \n\t" * (size // 3),
    "blank lines behind a record": lambda size: TEXT + b"\n" * size,
    "lines of one letter": lambda size: TEXT + b"\nx" * (size // 2),
    "carriage returns": lambda size: b"{}" + b"\r\n" * (size // 2) + b"{}",
    "opening brackets": lambda size: b"[" * size,
    "opening braces": lambda size: b'{"a":' * (size // 5),
    "brackets in pairs": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "nesting below the limit": member(b'"x":[', b"[" * 400 + b"]" * 400 + b",", b"0]"),
    "nesting above the limit": member(b'"x":', b"[" * 501 + b"]" * 501),
    "quotes": lambda size: b'"' * size,
    "backslashes": lambda size: b"[" + b"\\" * size + b"]",
    "short elements of 31 bytes": array(b'{"ts":1,"client_id":"abcdefgh"}'),
    "short elements of 33 bytes": array(b'{"ts":1,"client_id":"abcdefghij"}'),
    "short bad elements of 64 bytes": array(SHORT[:-2] + b'",}'),
    "short good elements": array(SHORT),
    "short good lines": lines(SHORT),
    "good elements": array(TEXT),
    "good lines": lines(TEXT),
    "good and bad elements": alternating(TEXT, BAD_TS, TEXT, b"{}"),
    "good elements and zeros": alternating(TEXT, *[b"0"] * 8),
    "bad times": array(BAD_TS),
    "late times": array(LATE),
    "bad labels": array(BAD_LABEL),
    "NaN in each": array(NAN),
    "NaN in each line": lines(NAN),
    "not UTF-8 in each": array(changed(array(TEXT), b"what is", b"\xff\xfe")(len(TEXT) + 2)[1:-1]),
    "indented records": array(INDENTED),
    "an array that does not end": lambda size: array(TEXT)(size)[:-1],
    "an array that is cut": lambda size: array(TEXT)(size)[:-40],
    "an array with a quote too many": lambda size: array(TEXT)(size)[:-40] + b'"}]',
    "two arrays": lambda size: array(TEXT)(size // 2) * 2,
    "prompt": member(b'"prompt":"', b"x", b'"'),
    "prompt of escapes": member(b'"prompt":"', b"\\n", b'"'),
    "prompt of code points": member(b'"prompt":"', b"\\u0041", b'"'),
    "prompt of surrogates": member(b'"prompt":"', b"\\ud83d\\ude00", b'"'),
    "prompt with a lone surrogate": member(b'"prompt":"\\ud800', b"x", b'"'),
    "prompt that is not UTF-8": member(b'"prompt":"', b"\xff", b'"'),
    "prompt of brackets": member(b'"prompt":"', b"[{", b'"'),
    "prompt without end": lambda size: member(b'"prompt":"', b"x", b'"')(size)[:-2],
    "client id without end": member(b'"client_id":"', b"x", b'"'),
    "zeros in a member": listed(b"x", b"0"),
    "zeros and NaN": listed(b"x", b"0", b"NaN"),
    "NaN in a member": listed(b"x", b"NaN"),
    "empty arrays and NaN": listed(b"x", b"[]", b"NaN"),
    "empty objects and NaN": listed(b"x", b"{}", b"NaN"),
    "many members": numbered(b'"x":{', b"0"),
    "many members and NaN": numbered(b'"x":{', b"0", b',"y":NaN}'),
    "the same member": member(b'"a":0', b',"a":0'),
    "many features": numbered(b'"features":{', b"0"),
    "many features of text": numbered(b'"features":{', b'"a"'),
    "many features and one bad": numbered(b'"features":{', b"0", b',"income":[]}'),
    "a feature of text": member(b'"features":{"purpose":"', b"x", b'"}'),
    "many scores": numbered(b'"output":{"scores":{', b"0.1", b"}}"),
    "embedding of zeros": listed(b"embedding", b"0"),
    "embedding of exponents": listed(b"embedding", b"1e-300"),
    "embedding of long numbers": listed(b"embedding", b"0.1234567890123456789012345678901234567890"),
    "embedding of nulls": listed(b"embedding", b"null"),
    "embedding of faces": lambda size: listed(b"embedding", b"0")(size).replace(b'"loan"', b'"faces"'),
    "embedding in base64": lambda size: member(b'"embedding":"', floats(size), b'"')(size),
    "base64 for faces": lambda size: member(b'"embedding":"', floats(size), b'"')(size).replace(b'"loan"', b'"faces"'),
    "text for an embedding": lambda size: member(b'"embedding":"[', b"0,", b'0]"')(size).replace(b'"loan"', b'"faces"'),
    "a number of a million digits": member(b'"ts":1', b"0"),
    "a fraction of a million digits": member(b'"ts":1.', b"0", b"1"),
    "a score of a million digits": member(b'"output":{"score":0.', b"123456789", b"}"),
    "huge numbers": listed(b"embedding", b"1e999"),
    "spaces": member(b'"x":', b" ", b"0"),
    "spaces in front": lambda size: b" " * size + TEXT,
    "NULs": lambda size: b"\0" * size,
    "bytes above 127": lambda size: b"\xff" * size,
}
