"""Benign traffic for the loan gateway: people, brokers and machines, scripted from real applications.

The hard kinds are here on purpose: they resemble attacks and must be left alone. Nothing here knows the detectors.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from examples.loan_gateway.model import CHOICES, NUMBERS, Features

Rng = np.random.Generator

KINDS = ("consumer", "re-quoter", "retry storm", "broker", "health check", "re-scoring")
CLASS_OF_KIND = {"broker": "broker", "health check": "system", "re-scoring": "system"}
"""Classes that the gateway's registry knows; everybody else is a consumer."""

DAY_SIZES = dict(zip(KINDS, (2_000, 600, 50, 12, 6, 6), strict=True))
LIVE_SIZES = dict(zip(KINDS, (160, 48, 4, 4, 2, 2), strict=True))
"""Clients per kind. Consumers, re-quoters and retry storms stand in the same proportion on both days; brokers and
systems are over-represented live, so that the table has something to show."""


@dataclass(slots=True)
class Client:
    """One client's script and what became of it.

    shopper : stops at the first accepted application. statuses : HTTP status of every request sent so far.
    """

    id: str
    kind: str
    requests: list[Features]
    shopper: bool = False
    statuses: list[int] = field(default_factory=list)

    @property
    def refused(self) -> int:
        return self.statuses.count(429)


def population(rng: Rng, people: Sequence[Features], sizes: dict[str, int]) -> list[Client]:
    """Clients of every kind in random order. Everybody is a different person; brokers draw their applicants freely."""
    own = iter(rng.permutation(len(people)))
    clients = []
    for kind, count in sizes.items():
        for _ in range(count):
            person = people[next(own)]
            client_id = f"acct-{rng.integers(16**10):010x}"
            clients.append(_client(rng, client_id, kind, person, people))
    return [clients[i] for i in rng.permutation(len(clients))]


def _client(rng: Rng, client_id: str, kind: str, person: Features, people: Sequence[Features]) -> Client:
    if kind == "consumer":
        return Client(client_id, kind, _consumer(rng, person))
    if kind == "re-quoter":
        if rng.random() < 0.25:
            return Client(client_id, kind, _shopper(rng, person), shopper=True)
        return Client(client_id, kind, _requoter(rng, person))
    if kind == "retry storm":
        return Client(client_id, kind, [person] * int(rng.integers(15, 60)))
    if kind == "health check":
        return Client(client_id, kind, [person] * int(rng.integers(40, 100)))
    if kind == "broker":
        return Client(client_id, kind, _broker(rng, people))
    return Client(client_id, kind, _rescoring(rng, people))


def _consumer(rng: Rng, person: Features) -> list[Features]:
    """One to three requests: the application, then an edit or the same again."""
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    requests = [person]
    while len(requests) < count:
        requests.append(edited(rng, requests[-1], 1) if rng.random() < 0.7 else requests[-1])
    return requests


def _requoter(rng: Rng, person: Features) -> list[Features]:
    """Own application with one to three edits at a time; most try a few, some try very often (Pareto, exponent 1.3)."""
    count = min(80, 3 + int(3 * rng.pareto(1.3)))
    requests = [person]
    while len(requests) < count:
        origin = requests[-1] if rng.random() < 0.5 else person
        requests.append(edited(rng, origin, int(rng.integers(1, 4))))
    return requests


def _shopper(rng: Rng, person: Features) -> list[Features]:
    """Asks for less and less until the answer is yes."""
    step = float(rng.choice([500, 1_000, 2_000]))
    amounts = np.arange(float(person["loan_amount"] or 0), 999, -step)[:25]
    return [person | {"loan_amount": int(amount)} for amount in amounts]


def _broker(rng: Rng, people: Sequence[Features]) -> list[Features]:
    """Many different applicants, every third quoted for both terms."""
    requests = []
    for i in rng.choice(len(people), int(rng.integers(20, 60)), replace=False):
        requests.append(people[i])
        if rng.random() < 1 / 3:
            requests.append(_other_term(people[i]))
    return requests


def _rescoring(rng: Rng, people: Sequence[Features]) -> list[Features]:
    """A batch job: a whole portfolio month by month; between months every figure moves a little."""
    portfolio = [people[i] for i in rng.choice(len(people), int(rng.integers(40, 80)), replace=False)]
    requests = list(portfolio)
    for _ in range(int(rng.integers(1, 3))):
        portfolio = [next_month(rng, person) for person in portfolio]
        requests += portfolio
    return requests


def edited(rng: Rng, person: Features, count: int) -> Features:
    """The application with `count` things that a person can change in a form changed."""
    choices = ("loan_amount", "term", "loan_purpose", "annual_income", "emp_length", "homeownership")
    names = rng.choice(choices, count, replace=False, p=(0.45, 0.2, 0.15, 0.12, 0.04, 0.04))
    new = dict(person)
    for name in names:
        if name == "loan_amount":
            new[name] = int(np.clip(float(new[name] or 0) + 500 * rng.integers(-10, 11), 1_000, 40_000))
        elif name == "term":
            new = _other_term(new)
        elif name == "annual_income":
            new = _other_income(rng, new)
        elif name == "emp_length":
            new[name] = int(rng.integers(0, 11))
        else:
            new[name] = str(rng.choice(CHOICES[name]))
    return new


def _other_term(person: Features) -> Features:
    return person | {"term": 60 if person["term"] == 36 else 36}


def _other_income(rng: Rng, person: Features) -> Features:
    """A corrected income in whole thousands; the form works out the ratio of debt to income again."""
    old = float(person["annual_income"] or 0)
    new = max(1_000, int(round(old * rng.uniform(0.85, 1.2), -3)))
    ratio = person["debt_to_income"]
    return person | {"annual_income": new, "debt_to_income": ratio and round(float(ratio) * old / new, 2)}


def next_month(rng: Rng, person: Features) -> Features:
    """The same borrower a month later: amounts drift by up to 3 %, counts now and then by one."""
    new = dict(person)
    for name in NUMBERS:
        value = person[name]
        if value is None or name in ("earliest_credit_line", "term", "emp_length"):
            continue
        if name == "debt_to_income":
            new[name] = round(float(value) * rng.uniform(0.98, 1.02), 2)
        elif name == "account_never_delinq_percent":
            new[name] = min(100, round(float(value) * rng.uniform(0.99, 1.01), 1))
        elif float(value) > 200:
            new[name] = int(float(value) * rng.uniform(0.97, 1.03))
        else:
            new[name] = max(0, int(value) + int(rng.choice([-1, 0, 1], p=[0.15, 0.7, 0.15])))
    return new


async def drive(url: str, clients: Sequence[Client], *, at_once: int) -> None:
    """Send every client's script as fast as the gateway answers, `at_once` clients at a time."""
    waiting = iter(clients)
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        await asyncio.gather(*(_take(session, waiting) for _ in range(at_once)))


async def _take(session: aiohttp.ClientSession, waiting: Iterator[Client]) -> None:
    for client in waiting:
        await speak(session, client, itertools.repeat(0.0))


async def drive_paced(url: str, clients: Sequence[Client], rng: Rng, *, seconds: float) -> None:
    """Spread the clients' first requests over `seconds`; then one every 0.1 s on average, long scripts faster."""

    async def one(client: Client) -> None:
        start = float(rng.uniform(0, seconds))
        mean_s = min(0.1, 8 / len(client.requests))
        pauses = iter(rng.exponential(mean_s, len(client.requests)).tolist())
        await asyncio.sleep(start)
        await speak(session, client, pauses)

    async with aiohttp.ClientSession(url) as session:
        await asyncio.gather(*map(one, clients))


async def speak(session: aiohttp.ClientSession, client: Client, pauses_s: Iterator[float]) -> None:
    """Send one client's requests in order. Raises RuntimeError if the gateway finds a benign request malformed."""
    for features in client.requests:
        await asyncio.sleep(next(pauses_s))
        async with session.post("/v1/score", json=features, headers={"X-Client-Id": client.id}) as response:
            answer = await response.json(content_type=None)
        client.statuses.append(response.status)
        if response.status not in (200, 429):
            raise RuntimeError(f"gateway answered {response.status}: {answer}")
        if client.shopper and answer.get("label") == "accept":
            return
