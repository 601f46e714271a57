"""The way of a name: a header's bytes, logged by a gateway, named by the service, decided on, refused by the door."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from models.pseudonym import pseudonym
from streams.adapters import native
from streams.adapters.request import Request
from streams.sketch.identity import Identity
from tests.doors import contract
from tests.doors.contract import KEY, Setting

CASES = Path(__file__).parents[1] / "cases"


def named(line: bytes) -> str:
    """The pseudonym that the service gives the client of a logged line."""
    request = native.decode(line, ())
    assert isinstance(request, Request)
    return pseudonym(KEY.key_id, *Identity(KEY.secret, KEY.key_id, b"s" * 32).client(request.client_id))


@pytest.mark.parametrize("door", [contract.asgi, contract.asgi_websocket])
def test_a_client_beyond_ascii_that_is_logged_as_utf8_is_refused(door: contract.Build) -> None:
    lines = (CASES / "client_id_not_ascii.jsonl").read_bytes().splitlines()
    (client,) = {named(line) for line in lines}
    setting = Setting(door)
    record = setting.decide("block")
    setting.decide("lift", revision=9)
    setting.decisions.apply(None, msgspec.json.encode(msgspec.structs.replace(record, client=client)))
    assert setting.ask("josé".encode()).status == 429
    assert setting.ask("jose").status == 200


@pytest.mark.parametrize(
    "reads",
    [
        lambda header: header.decode("latin-1"),
        lambda header: header.decode("utf-8", "replace"),
    ],
    ids=["latin-1", "utf-8"],
)
@pytest.mark.parametrize("header", [b"acct-1", "josé".encode(), b"jos\xe9", "客户".encode(), bytes(range(128, 256))])
def test_whatever_a_gateway_reads_in_the_header(header: bytes, reads: Callable[[bytes], str]) -> None:
    lines = (CASES / "client_id_not_ascii.jsonl").read_bytes().splitlines()
    logged = msgspec.json.encode(msgspec.json.decode(lines[0]) | {"client_id": reads(header)})
    setting = Setting(contract.asgi)
    record = setting.decide("block", client="somebody")
    setting.decisions.apply(None, msgspec.json.encode(msgspec.structs.replace(record, client=named(logged))))
    assert setting.ask(header).status == 429
