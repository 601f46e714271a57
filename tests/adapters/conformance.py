"""What every adapter must do, as checks that raise AssertionError; `test_conformance.py` runs them.

Fixtures of a format stand in `tests/adapters/<format>/`: messages in `good/` and `bad/`, and beside each message what
its elements must become (`NAME.json`). `python -m tests.adapters.conformance` writes those that are missing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from streams.adapters import REGISTRY
from streams.adapters.base import Adapter
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import EXPECTED, UNKNOWN_MODEL, UNKNOWN_TIME, Request, Salvaged
from streams.wire.rejects import Fault, Reason
from tests.adapters import scoring_log

FOLDER = Path(__file__).parent
ADAPTERS = (*REGISTRY, scoring_log.ADAPTER)
PLANTED = ("planted", "7310585")
"""Every fixture has these inside its values; no Fault may contain one."""

FEATURES = frozenset(("income", "purpose"))


def fixtures(adapter: Adapter, kind: str) -> list[Path]:
    """Messages of a format, `kind` "good" or "bad"; at least one."""
    paths = sorted(path for path in (FOLDER / adapter.name / kind).iterdir() if path.suffix != ".json")
    assert paths, f"tests/adapters/{adapter.name}/{kind} holds no message"
    return paths


def check_message(adapter: Adapter, value: bytes) -> Sequence[Request | Fault]:
    """What holds for any bytes. Returns the results."""
    results, elements = _decoded(adapter, value)
    for element, result in zip(elements, results, strict=True):
        if isinstance(result, Fault):
            check_fault(result)
        else:
            check_request(result)
            assert list(_decoded(adapter, element)[0]) == [result], "an element alone gives another request"
    assert list(_decoded(adapter, value)[0]) == list(results), "the same message gives another result"
    _check_fast_paths(adapter, value, results)
    return results


def check_request(request: Request) -> None:
    if not isinstance(request, Salvaged):
        assert _is_valid(request), "not a Request within its limits"
        return
    assert request.client_id, "nobody to hold it against"
    assert request.unread or request.lost, "all of it was read: a Request"
    assert all(name in EXPECTED or name == "record" for name in request.unread), "no field of a Request"
    if request.lost is not None:
        check_fault(request.lost)
    else:
        assert request.ts != UNKNOWN_TIME and request.model != UNKNOWN_MODEL, "cannot be judged, and nothing says why"


def check_fault(fault: Fault) -> None:
    assert isinstance(fault, Fault) and fault.reason in get_args(Reason), "not a Fault with a known reason"
    for text in (fault.field, fault.expected, fault.got):
        assert text and text.isprintable(), "a Fault has a field, an expectation and what it got"
        assert not any(planted in text for planted in PLANTED), "a Fault contains a value from the record"


def check_good(adapter: Adapter, path: Path) -> None:
    """Every element is the request in the golden beside the message."""
    value = path.read_bytes()
    assert all(planted.encode() in value for planted in PLANTED), f"{path}: holds no planted values"
    results = check_message(adapter, value)
    assert results and all(type(result) is Request for result in results), f"{path}: not all of it is read"
    assert plain(results) == json.loads(golden(path).read_text())


def check_bad(adapter: Adapter, path: Path) -> None:
    """At least one element is a Fault or Salvaged; what of it was read is in the golden beside the message."""
    value = path.read_bytes()
    assert any(planted.encode() in value for planted in PLANTED), f"{path}: holds no planted values"
    results = check_message(adapter, value)
    assert any(type(result) is not Request for result in results), f"{path}: all of it is read"
    assert plain(results) == json.loads(golden(path).read_text())


def golden(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def plain(results: Sequence[Request | Fault]) -> list[Any]:
    """Requests without what they do not give; of faults field and reason."""
    found = [_about(result) if isinstance(result, Fault) else _members(result) for result in results]
    built: list[Any] = json.loads(json.dumps(found))
    return built


def _about(fault: Fault) -> dict[str, str]:
    return {"field": fault.field, "reason": fault.reason}


def _members(request: Request) -> dict[str, Any]:
    given = {name: getattr(request, name) for name in request.__struct_fields__}
    lost = given.pop("lost", None)
    kept = {name: item for name, item in given.items() if item not in (None, (), UNKNOWN_TIME, UNKNOWN_MODEL)}
    built: dict[str, Any] = msgspec.to_builtins(kept)
    return built | ({"lost": _about(lost)} if lost else {})


def _decoded(adapter: Adapter, value: bytes) -> tuple[Sequence[Request | Fault], Sequence[bytes]]:
    try:
        elements = adapter.elements(value)
        most = adapter.number(value, 0)
        results = [adapter.decode(element, (), FEATURES) for element in elements]
    except Exception as error:
        raise AssertionError(f"{adapter.name} raised {type(error).__name__}") from error
    assert most - 1 <= len(elements) <= most + 1, "the number of elements is not what they are"
    assert len(elements) <= adapter.number(value, len(value) + 1), "the bound is below the number of elements"
    return results, elements


def _is_valid(request: Request) -> bool:
    try:
        return msgspec.json.decode(msgspec.json.encode(request), type=Request) == request
    except msgspec.ValidationError:
        return False


def _check_fast_paths(adapter: Adapter, value: bytes, results: Sequence[Request | Fault]) -> None:
    if adapter.decode_one is not None:
        try:
            request = adapter.decode_one(value)
        except UNREADABLE:
            pass
        else:
            assert [request] == list(results), "decode_one gives another request than decode"
    if adapter.scanner is not None and adapter.scanner().scan([value], len(value)).plain[0]:
        assert len(results) == 1, "the scanner takes a message that is no single request"


def write_goldens() -> None:
    for adapter in ADAPTERS:
        for path in (*fixtures(adapter, "good"), *fixtures(adapter, "bad")):
            if not golden(path).exists():
                results = plain(_decoded(adapter, path.read_bytes())[0])
                golden(path).write_text(json.dumps(results, indent=1) + "\n")
                print(golden(path).relative_to(FOLDER))


if __name__ == "__main__":
    write_goldens()
