"""From settings to figures: build the logs, let every method judge them, collect what evaluate.py says of it."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from time import monotonic, process_time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.detection import adaptive, attackers, benign, datasets, probewatch_method, shifts, victim
from bench.detection.attackers import Budget, Disguise
from bench.detection.evaluate import (
    BUDGETS,
    CONSUMER,
    EVERYBODY,
    NEVER,
    Limits,
    daily_maxima,
    delays,
    detection,
    false_alarms,
    limits,
    rate,
)
from bench.detection.log import Log, take_clients
from bench.detection.methods import REGISTRY
from bench.detection.methods.base import Method, View, fit_units, reference, view
from models.rows import CLASSES, F64, I64, U8
from streams.progress import Reporter

OURS = "probewatch"
WORKERS = 2
ATTACK_SEED = 7
"""One for all runs: streams are cached."""
SLOW_CLIENTS = 2_000
"""Certifying and judged consumers for slow methods: 1e-3 needs 999 of each."""
SLOW_ATTACKERS, SLOW_ROWS = 20, 100
ADAPTIVE_ROWS = 500
DISGUISES = {
    "plain": Disguise(),
    "1 dummy": Disguise(dummies=1),
    "10 dummies": Disguise(dummies=10),
    "50 dummies": Disguise(dummies=50),
    "7 days": Disguise(days=7),
    "20 accounts": Disguise(accounts=20),
}


class Scale(NamedTuple):
    """history, judged : clients by class. variants : (rounded, disguise) of every family. slow : whether slow
    methods run too. adaptive : runs of each attacker that adapts. disguised : attackers
    of a disguised scenario. disguised_rows : of one attacker, dummies included; what would come later is cut."""

    history: tuple[int, int, int]
    judged: tuple[int, int, int]
    days: int
    budget: Budget
    variants: tuple[tuple[bool, str], ...]
    slow: bool
    adaptive: int
    disguised: int
    disguised_rows: int


QUICK = Scale(
    history=(32_500, 700, 100), judged=(20_000, 300, 60), days=4, budget=Budget(20, 400),
    variants=((False, "plain"), (True, "plain"), (True, "10 dummies")), slow=False, adaptive=10,
    disguised=20, disguised_rows=660,
)  # fmt: skip
FULL = Scale(
    history=(68_000, 2_600, 700), judged=(100_000, 2_000, 400), days=7, budget=Budget(60, 600),
    variants=((False, "plain"), *((True, name) for name in DISGUISES)), slow=True, adaptive=50,
    disguised=20, disguised_rows=2_040,
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    dataset: str
    scale: Scale
    families: tuple[str, ...]
    methods: tuple[str, ...]
    seed: int = 0


class Scenario(NamedTuple):
    """Attackers of one family in one disguise. success_at : (streams,) see evaluate.detection."""

    family: str
    rounded: bool
    disguise: str
    log: Log
    accounts: int
    success_at: I64

    @property
    def name(self) -> str:
        return f"{self.family}, {'rounded' if self.rounded else 'raw'}, {self.disguise}"


class World(NamedTuple):
    """Everything that is judged. certifying : (c,) clients of the history that give limits."""

    settings: Settings
    dataset: datasets.Dataset
    model: victim.Model
    history: Log
    certifying: NDArray[np.bool_]
    judged: Log
    scenarios: list[Scenario]


class Case(NamedTuple):
    """What a method said. handicap : (c,) added to the limits of a scenario's clients, by scenario."""

    certified: F64
    client_class: U8
    judged: Log
    judged_score: F64
    scenarios: Sequence[tuple[Scenario, F64, F64]]


def build(settings: Settings, reporter: Reporter) -> World:
    dataset = datasets.load(settings.dataset)
    model = victim.train(dataset)
    scale = settings.scale
    seeds = np.random.SeedSequence(settings.seed).spawn(3)
    advance = reporter.task("benign clients", 2)
    logs = []
    for sizes, seed in zip((scale.history, scale.judged), seeds[:2], strict=True):
        rng = np.random.default_rng(seed)
        logs.append(benign.population(dataset, model, benign.sizes(*sizes), scale.days, rng))
        advance(1)
    scenarios = list(_scenarios(settings, dataset, model, reporter))
    return World(settings, dataset, model, logs[0], probewatch_method.is_certifying(logs[0]), logs[1], scenarios)


def _scenarios(
    settings: Settings, dataset: datasets.Dataset, model: victim.Model, reporter: Reporter
) -> Iterator[Scenario]:
    """Each family runs once raw and once rounded; disguises share the streams."""
    scale = settings.scale
    wanted = [(family, rounded) for family in settings.families for rounded in sorted({r for r, _ in scale.variants})]
    for (family, rounded), found in zip(wanted, _attack(wanted, dataset, model, scale.budget, reporter), strict=True):
        for number, (of_rounded, name) in enumerate(scale.variants):
            if of_rounded == rounded:
                how = DISGUISES[name]
                rng = np.random.default_rng([settings.seed, attackers.FAMILIES.index(family), number])
                streams = _cut(found, scale.disguised_rows // (1 + how.dummies))
                streams = streams if name == "plain" else _first(streams, scale.disguised)
                log = attackers.disguise(streams, dataset, model, rng, how)
                yield Scenario(family, rounded, name, log, how.accounts, streams.success_at + 1)


def _cut(streams: attackers.Streams, rows: int) -> attackers.Streams:
    """The first rows of each; a goal that lies beyond is not reached."""
    reached = np.where(streams.success_at < rows, streams.success_at, -1)
    return streams._replace(inputs=[stream[:rows] for stream in streams.inputs], success_at=reached)


def _first(streams: attackers.Streams, wanted: int) -> attackers.Streams:
    return streams._replace(inputs=streams.inputs[:wanted], success_at=streams.success_at[:wanted])


def _attack(
    wanted: Sequence[tuple[str, bool]],
    dataset: datasets.Dataset,
    model: victim.Model,
    budget: Budget,
    reporter: Reporter,
) -> list[attackers.Streams]:
    """Streams of (family, rounded) pairs, side by side: each new process loads the toolbox for five seconds."""
    advance = reporter.task("attacks", len(wanted))

    def arguments(family: str, rounded: bool) -> tuple[Any, ...]:
        return family, dataset, model, np.random.default_rng(ATTACK_SEED), budget._replace(rounded=rounded)

    missing = [each for each in wanted if not attackers.is_cached(*arguments(*each))]
    advance(len(wanted) - len(missing))
    if len(missing) > 1:
        # Spawned: a forked child of a process that has used OpenMP hangs in its first parallel region.
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
            for running in [pool.submit(attackers.run, *arguments(*each), processes=1) for each in missing]:
                running.result()
                advance(1)
    return [attackers.run(*arguments(*each)) for each in wanted]


def _pool() -> ProcessPoolExecutor:
    """Forked, so that logs are shared; one thread of OpenMP (see __main__), or a fork could hang."""
    return ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork"))


def run(settings: Settings, reporter: Reporter) -> dict[str, Any]:
    """All figures, as plain values for JSON."""
    begun = monotonic()
    world = build(settings, reporter)
    chosen = [method for method in REGISTRY if method.name in settings.methods]
    fast = [method for method in chosen if settings.scale.slow or not method.slow]
    global _world
    _world = world
    advance = reporter.task("methods", len(fast) + 1)
    with _pool() as pool:
        first = sorted(fast, key=lambda method: not method.slow)  # the longest ones
        running = {method.name: pool.submit(_measure, method.name) for method in first}
        own = measure_ours(world, reporter)
        advance(1)
        others = []
        for method in fast:
            others.append(running[method.name].result())
            advance(1)
    return {
        "settings": _described(world), "seconds": monotonic() - begun, "methods": [own.pop("result"), *others],
        "left_out": [method.name for method in chosen if method not in fast], **own,
    }  # fmt: skip


_world: World


def _measure(name: str) -> dict[str, Any]:
    return measure(_world, next(method for method in REGISTRY if method.name == name))


def measure(world: World, method: Method) -> dict[str, Any]:
    """A comparator: fitted on fitting clients, limits from certifying ones, like ours."""
    categorical = np.array([bool(field.categories) for field in world.dataset.fields])
    units = fit_units(world.history, categorical, ~world.certifying[world.history.client])
    ordinary = reference(world.history, units, ~world.certifying)
    certifying, judged = take_clients(world.history, np.flatnonzero(world.certifying)), world.judged
    scenarios = world.scenarios
    if method.slow:
        certifying, judged, scenarios = _few(certifying), _few(judged), [_short(one) for one in _plain(scenarios)]

    def score(log: Log) -> F64:
        return method.score(view(log, units), ordinary)

    maxima = daily_maxima(certifying, score(certifying))
    at = view(judged, units)
    begun = process_time()
    judged_score = method.score(at, ordinary)
    spent = process_time() - begun
    found = limits(maxima, certifying.client_class)
    case = Case(
        maxima, certifying.client_class, judged, judged_score, [(s, score(s.log), np.zeros(1)) for s in scenarios]
    )
    return {
        "name": method.name, "source": method.source, "parameters": method.parameters, "slow": method.slow,
        "us_per_row": 1e6 * spent / judged.rows, "bytes_per_client": _bytes(method, at),
        **assess(case, found), "published": list(_published(method, case)),
    }  # fmt: skip


def _bytes(method: Method, at: View) -> float:
    distinct = np.add.reduceat((~at.repeat).astype(np.int64), at.log.starts[:-1])
    return float(method.state_bytes(distinct, at.x.shape[1]).mean())


def _few(log: Log) -> Log:
    return take_clients(log, np.flatnonzero(log.client_class == CONSUMER)[:SLOW_CLIENTS])


def _plain(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Undisguised ones, rounded where there are any: one line a family."""
    rounded = any(scenario.rounded for scenario in scenarios)
    return [scenario for scenario in scenarios if scenario.disguise == "plain" and scenario.rounded == rounded]


def _short(scenario: Scenario) -> Scenario:
    """The first attackers, and the first rows of each."""
    log = take_clients(scenario.log, np.arange(min(SLOW_ATTACKERS, scenario.log.clients)))
    kept = np.arange(log.rows) - log.starts[log.client] < SLOW_ROWS
    starts = np.concatenate(([0], np.cumsum(np.bincount(log.client[kept], minlength=log.clients))))
    columns = {name: getattr(log, name)[kept] for name in ("client", "time_ms", "inputs", "score", "label", "probe")}
    short = log._replace(starts=starts, **columns)
    return scenario._replace(log=short, success_at=scenario.success_at[: short.clients])


def assess(case: Case, found: Limits) -> dict[str, Any]:
    """Limits, false alarms and detection of one method."""
    maxima = daily_maxima(case.judged, case.judged_score)
    return {
        "limits": [
            {
                "class": _scope(k), "budget": BUDGETS[b], "above": float(found.above[k, b]),
                "certified": bool(found.rank[k, b]),
            }
            for k, b in np.ndindex(found.above.shape)
        ],
        "false_alarms": [
            {"thresholds": thresholds, "scope": scope, "budget": budget, "share": measured.share, **measured._asdict()}
            for thresholds, scope, budget, measured in false_alarms(case.judged, maxima, found)
        ],
        "detection": [line for scenario in case.scenarios for line in _detected(*scenario, found)],
    }  # fmt: skip


def _scope(k: int) -> str:
    return "everybody" if k == EVERYBODY else CLASSES[k]


def _detected(scenario: Scenario, score: F64, handicap: F64, found: Limits) -> Iterator[dict[str, Any]]:
    """handicap : (c,), or one for all."""
    log = scenario.log
    for b, budget in enumerate(BUDGETS):
        for thresholds, above in (("class", found.above[log.client_class, b]), ("one", found.above[[EVERYBODY], b])):
            limit = np.broadcast_to(above + handicap, log.clients)
            line = detection(delays(log, score > limit[log.client], scenario.accounts), scenario.success_at)
            yield {**_told(scenario), "thresholds": thresholds, "budget": budget, **line._asdict()}


def _told(scenario: Scenario) -> dict[str, Any]:
    return {"family": scenario.family, "rounded": scenario.rounded, "disguise": scenario.disguise}


def _published(method: Method, case: Case) -> Iterator[dict[str, Any]]:
    """What the authors' own settings do here: consumers falsely alarmed, and plain attackers found."""
    maxima = daily_maxima(case.judged, case.judged_score)
    for name, above in method.published.items():
        alarmed = rate(maxima[case.judged.client_class == CONSUMER] > above, 0, 0)
        caught = [delays(s.log, score > above, s.accounts) for s, score, _ in case.scenarios if s.disguise == "plain"]
        found = [detection(each, np.zeros_like(each)) for each in caught]
        attackers_seen = sum(each.attackers for each in found)
        yield {
            "setting": name, "consumers_alarmed": alarmed.share, "high": alarmed.high,
            "attackers_found": sum(each.found for each in found) / attackers_seen if attackers_seen else None,
        }  # fmt: skip


def measure_ours(world: World, reporter: Reporter) -> dict[str, Any]:
    """The engine, its ablations, shifts of the benign population, and attackers that adapt."""
    advance = reporter.task("our engine", 5)
    fitted = probewatch_method.fit(world.history, world.dataset, reporter)
    advance(1)
    history = probewatch_method.sketch(fitted, world.history, probewatch_method.HISTORY)
    judged = probewatch_method.sketch(fitted, world.judged, probewatch_method.JUDGED)
    attacks = [probewatch_method.sketch(fitted, s.log, f"{s.name}/") for s in world.scenarios]
    advance(1)
    client_class = world.history.client_class[world.certifying]

    def case(score: Callable[[probewatch_method.Sketched], F64], scenarios: Sequence[Scenario]) -> Case:
        names = {scenario.name for scenario in scenarios}
        maxima = daily_maxima(world.history, score(history))[world.certifying]
        said = [
            (s, score(at), probewatch_method.handicap(at))
            for s, at in zip(world.scenarios, attacks, strict=True)
            if s.name in names
        ]
        return Case(maxima, client_class, world.judged, score(judged), said)

    def score(at: probewatch_method.Sketched) -> F64:
        return probewatch_method.statistic(fitted, fitted.model.reference, at)

    main = case(score, world.scenarios)
    found = probewatch_method.product_limits(fitted, main.certified, client_class)
    cost = probewatch_method.cost(fitted, judged)
    result = {
        "name": OURS, "source": "docs/engine.md", "parameters": "as calibrated", "slow": False,
        "us_per_row": cost.fold_us, "sketch_us_per_row": cost.sketch_us, "bytes_per_client": cost.bytes_per_client,
        **assess(main, found), "published": [],
    }  # fmt: skip
    advance(1)
    ablated = [
        _ablated(variant, case(variant.score, _plain(world.scenarios)))
        for variant in probewatch_method.ablations(fitted, history)
    ]
    advance(1)
    adapting = list(_adapting(world, fitted))
    moved = shifts.measure(
        world.dataset, world.model, world.settings.scale.judged, world.settings.scale.days, fitted, found
    )
    advance(1)
    return {
        "result": result, "certificate": probewatch_method.describe(fitted), "calibration_s": fitted.seconds,
        "ablations": ablated,
        "shifts": moved, "adaptive": adapting,
    }  # fmt: skip


def _adapting(world: World, fitted: probewatch_method.Fitted) -> Iterator[dict[str, Any]]:
    """Attackers who learn of each refusal at once, and attackers who do not; each against the running engine."""
    for oracle in (False, True):
        ended = []
        for number in range(world.settings.scale.adaptive):
            judge = probewatch_method.live(fitted, f"adaptive{number}")
            rng = np.random.default_rng([ATTACK_SEED, number])
            ended.append(adaptive.attack(world.dataset, world.model, judge, rng, oracle=oracle, rows_max=ADAPTIVE_ROWS))
        reached = np.array([one.success_at for one in ended]) + 1
        for what, first in (("refusal (soft)", "first_refusal"), ("alert (hard)", "first_alert")):
            found = np.array([getattr(one, first) for one in ended]) + 1
            line = detection(np.where(found > 0, found, NEVER), reached)
            yield {
                "attacker": "learns of each refusal" if oracle else "learns of none",
                "until": what,
                **line._asdict(),
            }


def _ablated(variant: probewatch_method.Variant, case: Case) -> dict[str, Any]:
    found = limits(case.certified, case.client_class)
    if variant.model_limits:
        found = found._replace(above=np.tile(-np.log(BUDGETS), (EVERYBODY + 1, 1)), rank=np.zeros_like(found.rank))
    return {"name": variant.name, **assess(case, found)}


def _described(world: World) -> dict[str, Any]:
    settings, scale = world.settings, world.settings.scale
    return {
        "dataset": settings.dataset, "fields": len(world.dataset.fields), "auc": world.model.auc, "seed": settings.seed,
        "history_clients": world.history.clients, "history_rows": world.history.rows,
        "certifying_clients": int(world.certifying.sum()), "judged_clients": world.judged.clients,
        "judged_rows": world.judged.rows, "days": scale.days, "attackers": scale.budget.victims,
        "rows_max": scale.budget.rows_max, "scenarios": len(world.scenarios),
    }  # fmt: skip
