"""Runs the two attackers in threads beside the live traffic, and the same attack once without a gateway in between."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from examples.attackers import Box, FormulaSweep, GaveUpError, HopSkipJump, Prober
from examples.loan_gateway.model import Features, LoanModel

HOPSKIPJUMP, SWEEP = "HopSkipJump (ART)", "formula sweep"
SEED = 7


class StoppedError(Exception):
    """The demo ends."""


@dataclass(slots=True)
class Attacks:
    """Both attacks and how far they came.

    unprotected : scaled distance that the same HopSkipJump reaches when nobody stops it; None until it has been tried.
    """

    victim: Features
    box: Box
    unprotected: float | None = None
    hopskipjump: HopSkipJump | None = None
    sweep: FormulaSweep | None = None
    probers: list[Prober] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Threads end at their next request: a thread cannot be cancelled."""
        self._stop.set()

    async def without_gateway(self, model: LoanModel) -> None:
        """What the attack is worth: the model asked directly, default budget, about 24,400 rows."""
        attack = HopSkipJump(self.victim, self.box, self._stoppable(lambda features: model.decide(features)[0]))
        await _in_thread(attack.run)
        self.unprotected = attack.nearest

    async def through(self, url: str, client_ids: Sequence[str]) -> None:
        """Both attackers at once until each is done or gives up."""
        self.probers = [Prober(url, id_, kind) for id_, kind in zip(client_ids, (HOPSKIPJUMP, SWEEP), strict=True)]
        walker, sweeper = self.probers
        self.hopskipjump = HopSkipJump(self.victim, self.box, self._stoppable(walker.ask))
        self.sweep = FormulaSweep(self.victim, self._stoppable(sweeper.ask))
        await asyncio.gather(_in_thread(self.hopskipjump.run), _in_thread(self.sweep.run))

    def _stoppable(self, ask: Callable[[Features], str]) -> Callable[[Features], str]:
        def asked(features: Features) -> str:
            if self._stop.is_set():
                raise StoppedError
            return ask(features)

        return asked

    def verdicts(self) -> list[str]:
        """One sentence an attacker: what was wanted, what was got."""
        assert self.hopskipjump is not None and self.sweep is not None
        free = "" if self.unprotected is None else f"; without a gateway in between it comes to {self.unprotected:.3f}"
        nearest = self.hopskipjump.nearest
        found = (
            "nothing that is accepted" if np.isinf(nearest) else f"an accepted application at distance {nearest:.3f}"
        )
        wanted = sum(1 for _ in self.sweep.grid())
        return [
            f"{HOPSKIPJUMP} found {found}{free}",
            f"{SWEEP} learnt {len(self.sweep.answers)} of the {wanted} points it wanted",
        ]


def pick_victim(model: LoanModel, people: Sequence[Features]) -> Features:
    """The first narrowly declined applicant without blanks: whom an attacker would begin with."""
    return next(p for p in people if None not in p.values() and 0.35 <= model.decide(p)[1] < 0.5)


async def _in_thread(attack: Callable[[], None]) -> None:
    def run() -> None:
        try:
            attack()
        except (GaveUpError, StoppedError):
            return

    await asyncio.to_thread(run)
