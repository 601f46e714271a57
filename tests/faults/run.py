"""Seeded runs: which faults strike in which order, and what came of it."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.fault import Fault
from tests.faults.registry import REGISTRY
from tests.faults.scene import Scene, settings
from tests.faults.verdict import Strike, Verdict, judge
from tests.kafka_broker import kafka_cluster
from tests.pipeline import Calibrated, all_handled, until

EACH = 3
"""How often every fault is in a full set, over all runs; rare ones once."""

Tell = Callable[[str], None]


class Plan(NamedTuple):
    """One run. faults : in order."""

    seed: int
    nodes: int
    faults: Sequence[Fault]


class Done(NamedTuple):
    plan: Plan
    strikes: Sequence[Strike]
    verdict: Verdict
    seconds: float


def plans(seed: int, runs: int, each: int = EACH) -> Iterator[Plan]:
    """`runs` runs, every third on three nodes, among which all faults are dealt that are possible here."""
    rng = random.Random(seed)
    sizes = [3 if number % 3 == 2 else 1 for number in range(runs)]
    hands: list[list[Fault]] = [[] for _ in range(runs)]
    deck = [fault for fault in REGISTRY if not fault.impossible() for _ in range(1 if fault.rare else each)]
    rng.shuffle(deck)
    for fault in sorted(deck, key=lambda fault: len(fault.nodes)):  # the choosy ones first
        fitting = [hand for hand, size in zip(hands, sizes, strict=True) if size in fault.nodes]
        if fitting:
            min(fitting, key=lambda hand: (fault in hand, len(hand))).append(fault)
    for number, (hand, size) in enumerate(zip(hands, sizes, strict=True)):
        rng.shuffle(hand)
        yield Plan(seed + number, size, hand)


async def perform(plan: Plan, fitted: Calibrated, folder: Path, tell: Tell) -> Done:
    """Raises AssertionError, with the workers' words, if a fault is not got over at all."""
    begun = time.monotonic()
    disks = any(fault.small_disk for fault in plan.faults)
    with kafka_cluster(plan.nodes, settings(plan.nodes), small_disks=disks) as cluster:
        scene = Scene(cluster, fitted, folder, f"faults-{plan.seed}", plan.seed)
        strikes = []
        async with scene.playing():
            for fault in plan.faults:
                strikes.append(await _strike(scene, fault))
                tell(f"  {fault.name}: {strikes[-1].seconds:.1f} s, settled after {strikes[-1].settled_s:.1f} s")
            await scene.feed.pause()
            await scene.settle()
            await until(lambda: all_handled(scene.config), "also what the stages wrote last")
        verdict = await judge(scene, strikes)
    return Done(plan, strikes, verdict, time.monotonic() - begun)


async def _strike(scene: Scene, fault: Fault) -> Strike:
    """One fault, and what has to be got over after it."""
    rows, at_s, since_s = scene.feed.sent, time.time(), time.monotonic()
    await asyncio.sleep(scene.rng.uniform(0.2, 0.8))
    await fault.strike(scene)
    seconds = time.monotonic() - since_s
    await scene.settle()
    return Strike(fault, rows, at_s, since_s, seconds, time.monotonic() - since_s)
