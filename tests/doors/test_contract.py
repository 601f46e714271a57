"""Every door keeps the contract; and each check of it fails on a door that breaks it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probewatch_door import asgi as asgi_module
from probewatch_door.decisions import Decisions
from probewatch_door.limits import Delay, Gate, Refuse
from probewatch_door.pseudonym import pseudonyms
from probewatch_door.record import Throttle
from tests.doors import contract, wsgi
from tests.doors.contract import CHECKS, KEY, Answer, Ask, Build

DOORS: dict[str, Build] = {"asgi": contract.asgi, "wsgi": wsgi.wsgi}
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


def faulty(fault: str) -> Build:
    """A door with one fault; "" for none."""

    def build(decisions: Decisions, **options: Any) -> Ask:
        decisions.__class__ = VIEWS.get(fault, Decisions)
        if fault == "allowlist":
            options.pop("allowlist", None)
        if fault == "status":
            options.pop("block_status", None)
        gate = Gate(decisions, **options)

        def ask(client_id: str) -> Answer:
            names = pseudonyms("alice" if fault == "everybody" else client_id, [KEY])
            with gate.admit(names, "loan") as verdict:
                capped = isinstance(verdict, Refuse) and verdict.decision.action == "cap"
                if isinstance(verdict, Refuse) and not (fault == "uncapped" and capped):
                    talk = {"x-detector": verdict.decision.reason} if fault == "talks" else {}
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
    ],
)
def test_a_check_fails_on_a_door_that_breaks_it(fault: str, check: Callable[[Build], None]) -> None:
    check(faulty(""))
    with pytest.raises(AssertionError):
        check(faulty(fault))
    assert check in CHECKS
