"""Runs the two attackers in threads beside the live traffic, and the same attack once without a gateway in between."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from examples.attackers import Box, FormulaSweep, GaveUpError, HopSkipJump, Prober
from examples.loan_gateway.model import Features, LoanModel

HOPSKIPJUMP, SWEEP = "HopSkipJump (ART)", "formula sweep"
FREE_TRIES, FREE_ROWS = 5, 1_000


class StoppedError(Exception):
    """The demo ends."""


@dataclass(slots=True)
class Attacks:
    """Both attacks and how far they came.

    unprotected : scaled distance that the same HopSkipJump reaches when nobody stops it; infinite until tried.
    """

    victim: Features
    box: Box
    unprotected: float = np.inf
    hopskipjump: HopSkipJump | None = None
    sweep: FormulaSweep | None = None
    probers: list[Prober] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Threads end at their next request: a thread cannot be cancelled."""
        self._stop.set()

    async def without_gateway(self, model: LoanModel) -> None:
        """What the attack is worth: the model asked directly. The median of some tries, since it begins at random."""
        reached = []
        for _ in range(FREE_TRIES):
            rows = iter(range(FREE_ROWS))

            def ask(features: Features, rows: Iterator[int] = rows) -> str:
                if next(rows, None) is None:
                    raise GaveUpError
                return model.decide(features)[0]

            attack = HopSkipJump(self.victim, self.box, self._stoppable(ask))
            await _in_thread(attack.run)
            reached.append(attack.nearest)
        self.unprotected = float(np.median(reached))

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
        nearest, wanted = self.hopskipjump.nearest, sum(1 for _ in self.sweep.grid())
        came = "failed" if nearest > 2 * self.unprotected else "came about as far as it can"
        return [
            f"{HOPSKIPJUMP} {came}: its nearest accepted application lies {nearest:.3f} from the victim;"
            f" without a door it comes to {self.unprotected:.3f} within {FREE_ROWS:,} rows",
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
