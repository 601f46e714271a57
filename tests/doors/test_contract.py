"""Every door keeps the contract; and each check of it fails on a door that breaks it."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from probewatch_door import asgi as asgi_module
from probewatch_door.asgi import ProbewatchDoor
from probewatch_door.decisions import Decisions
from probewatch_door.limits import Delay, Gate, Refuse, refuse_unclear
from probewatch_door.pseudonym import RepeatedHeaderError, header_pseudonyms, pseudonyms
from probewatch_door.record import Throttle
from tests.doors import contract, wsgi
from tests.doors.contract import CHECKS, KEY, Answer, Ask, Build, header_bytes

DOORS: dict[str, Build] = {
    "asgi": contract.asgi, "asgi websocket": contract.asgi_websocket, "wsgi": wsgi.wsgi,
}  # fmt: skip
LINES_MAX = 150


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("door", DOORS)
def test_a_door_keeps_the_contract(door: str, check: Callable[[Build], None]) -> None:
    check(DOORS[door])


def test_a_door_is_small() -> None:
    for module in (asgi_module, wsgi):
        assert module.__file__ is not None
        assert len(Path(module.__file__).read_text().splitlines()) <= LINES_MAX


class _Believing(Decisions):
    """Takes a stale view for a fresh one."""

    fresh = True  # type: ignore[assignment]


class _Mild(Decisions):
    """Obeys the judge alone."""

    def strictest(self, clients: Any, model: str | None) -> Throttle | None:
        found = super().strictest(clients, model)
        return None if found is None or found.origin != "judge" else found


class _Forgetful(Decisions):
    """Remembers the first decision for ever."""

    first: Throttle | None = None

    def strictest(self, clients: Any, model: str | None) -> Throttle | None:
        self.first = self.first or super().strictest(clients, model)
        return self.first if self.first is not None and self.first.client in clients else None


class _Early(Decisions):
    """Acts on decisions before they take effect."""

    def strictest(self, clients: Any, model: str | None) -> Throttle | None:
        last = next((timeline[-1] for timeline in self._timelines.values() if timeline[-1].client in clients), None)
        return None if last is None or last.action == "lift" or last.mode == "shadow" or not self.fresh else last


VIEWS: dict[str, type[Decisions]] = {"stale": _Believing, "mild": _Mild, "forgetful": _Forgetful, "early": _Early}


READINGS = ("latin-1", "utf-8", "ascii")
"""Doors that know only one reading of a header's bytes."""


def faulty(fault: str) -> Build:
    """A door with one fault; "" for none."""

    def build(decisions: Decisions, **options: Any) -> Ask:
        decisions.__class__ = VIEWS.get(fault, Decisions)
        if fault == "allowlist":
            options.pop("allowlist", None)
        if fault == "status":
            options.pop("block_status", None)
        gate = Gate(decisions, **options)

        def ask(*values: str | bytes) -> Answer:
            sent = [b"alice"] if fault == "everybody" else [header_bytes(value) for value in values]
            try:
                names = header_pseudonyms(sent[: 1 if fault == "first" else None], [KEY])
            except RepeatedHeaderError:
                unclear = refuse_unclear()
                return Answer(unclear.status, dict(unclear.headers), unclear.body, False)
            if fault in READINGS:
                names = pseudonyms(sent[0].decode(fault, "replace"), [KEY])
            with gate.admit(names, "loan") as verdict:
                decision = verdict.decision
                capped = decision is not None and decision.action == "cap"
                if isinstance(verdict, Refuse) and not (fault == "uncapped" and capped):
                    talk = {"x-detector": decision.reason} if fault == "talks" and decision else {}
                    return Answer(verdict.status, dict(verdict.headers) | talk, verdict.body, False)
                if isinstance(verdict, Delay) and fault != "hasty":
                    time.sleep(verdict.seconds)
                return Answer(200, {}, b"ok", True)

        return ask

    return build


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("everybody", contract.passes_clients_without_a_decision),
        ("stale", contract.fails_open_on_a_stale_view),
        ("mild", contract.obeys_the_strictest),
        ("uncapped", contract.holds_to_the_rate),
        ("early", contract.honours_the_beginning_and_the_end),
        ("forgetful", contract.honours_the_beginning_and_the_end),
        ("forgetful", contract.obeys_a_lift),
        ("hasty", contract.delays),
        ("talks", contract.refuses_without_naming_the_statistic),
        ("allowlist", contract.lets_the_allowlist_through),
        ("status", contract.refuses_blocks_with_the_chosen_status),
        ("latin-1", contract.knows_a_client_by_its_bytes),
        ("utf-8", contract.knows_a_client_by_its_bytes),
        ("ascii", contract.knows_a_client_by_its_bytes),
        ("first", contract.refuses_a_header_that_stands_twice),
    ],
)
def test_a_check_fails_on_a_door_that_breaks_it(fault: str, check: Callable[[Build], None]) -> None:
    check(faulty(""))
    with pytest.raises(AssertionError):
        check(faulty(fault))
    assert check in CHECKS


class _DeafToSockets(ProbewatchDoor):
    """Lets every WebSocket through."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@pytest.mark.parametrize("check", [contract.refuses_without_naming_the_statistic, contract.holds_to_the_rate])
def test_a_check_fails_on_a_door_that_lets_every_websocket_through(check: Callable[[Build], None]) -> None:
    check(partial(contract.asgi, door=_DeafToSockets))
    with pytest.raises(AssertionError):
        check(partial(contract.asgi_websocket, door=_DeafToSockets))
