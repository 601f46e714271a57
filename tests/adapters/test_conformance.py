"""Every adapter of the registry, and one of tests alone, keeps the contract of streams/adapters/base.py."""

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.adapters import REGISTRY, native
from streams.adapters.base import Adapter
from streams.adapters.request import UNKNOWN_TIME, Request, Salvaged
from streams.wire.rejects import Fault
from tests.adapters import conformance
from tests.adapters.conformance import ADAPTERS, FOLDER, check_bad, check_good, check_message, fixtures

INSERTED = (b"", b'"', b"{", b"]", b"\xff", b"\n", b"1e999", b"NaN")
DOCS = Path(__file__).parents[2] / "docs" / "formats"


def cases(kind: str) -> list[tuple[Adapter, Path]]:
    return [(adapter, path) for adapter in ADAPTERS for path in fixtures(adapter, kind)]


def ids(case: object) -> str:
    return case.name if isinstance(case, Adapter | Path) else str(case)


@pytest.mark.parametrize(("adapter", "path"), cases("good"), ids=ids)
def test_good_messages_give_the_expected_requests(adapter: Adapter, path: Path) -> None:
    check_good(adapter, path)


@pytest.mark.parametrize(("adapter", "path"), cases("bad"), ids=ids)
def test_bad_messages_give_faults_that_name_the_field_and_never_the_value(adapter: Adapter, path: Path) -> None:
    check_bad(adapter, path)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=ids)
def test_any_bytes_give_requests_or_faults(adapter: Adapter) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.one_of(st.binary(max_size=80), st.text(alphabet='[]{}",:\\ \na1', max_size=80).map(str.encode)))
    def check(value: bytes) -> None:
        check_message(adapter, value)

    check()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=ids)
def test_damaged_messages_give_requests_or_faults(adapter: Adapter) -> None:
    """Bytes changed, cut out and put in, in every fixture."""
    rng = random.Random(3)
    messages = [path.read_bytes() for kind in ("good", "bad") for path in fixtures(adapter, kind)]
    for _ in range(600):
        value = bytearray(rng.choice(messages))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(value)) if value else 0
            value[place : place + rng.randint(0, 9)] = rng.choice(
                (b"", b'"', b"{", b"]", b"\xff", b"\n", b"1e999", b"NaN")
            )
        check_message(adapter, bytes(value))


def test_names_are_distinct_and_each_format_has_its_page_and_its_fixtures() -> None:
    names = [adapter.name for adapter in ADAPTERS]
    assert len(set(names)) == len(names)
    assert {path.name for path in FOLDER.iterdir() if path.is_dir() and path.name[0] != "_"} == set(names)
    pages = {adapter.name: "requests" if adapter is native.ADAPTER else adapter.name for adapter in REGISTRY}
    assert not [page for page in pages.values() if not (DOCS / f"{page}.md").is_file()]


GOOD = Request(1.0, "c", "m", "r")
FAULT = Fault("record", "JSON", "nothing", "malformed")
NUMBERS = count()


def decoding(result: Callable[[bytes], Request | Fault]) -> Adapter:
    return Adapter("broken", lambda value, headers, features: result(value))


BROKEN = {
    "it raises": decoding(lambda value: FAULT if value[5] else GOOD),
    "it quotes the record": decoding(lambda value: FAULT._replace(got=value.decode())),
    "it counts other elements than it makes": decoding(lambda value: GOOD)._replace(elements=lambda value: [value] * 3),
    "it gives a client without a name": decoding(lambda value: Request(1.0, "", "m", "r")),
    "it salvages a request of nobody": decoding(lambda value: Salvaged(1.0, "", "m", unread=("ts",))),
    "it salvages what it cannot judge and does not say why": decoding(
        lambda value: Salvaged(UNKNOWN_TIME, "c", "m", unread=("ts",))
    ),
    "it names a field of the record": decoding(lambda value: Salvaged(1.0, "c", "m", unread=(value.decode(),))),
    "it gives a reason that is not in the list": decoding(lambda value: FAULT._replace(reason="odd")),  # type: ignore[arg-type]
    "it has a state": decoding(lambda value: Request(float(next(NUMBERS)), "c", "m", "r")),
    "its elements are not the messages of its requests": decoding(
        lambda value: GOOD if value.startswith(b" ") else FAULT
    )._replace(elements=lambda value: [value[1:]]),
    "its fast path reads another request": decoding(lambda value: GOOD)._replace(
        decode_one=lambda value: Request(2.0, "c", "m", "r")
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_adapter_does_not_pass(name: str) -> None:
    def check() -> None:
        for value in (b"a planted value", b""):
            check_message(BROKEN[name], value)

    with pytest.raises(AssertionError):
        check()


def test_a_fixture_without_its_golden_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one"
    path.write_bytes(b'{"ts":1,"request_id":"planted","client_id":"7310585","model":"m"}')
    for golden in ("[]", "[{}]"):
        monkeypatch.setattr(conformance, "golden", lambda _, text=golden: _written(tmp_path / "golden", text))
        with pytest.raises(AssertionError):
            check_good(native.ADAPTER, path)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
