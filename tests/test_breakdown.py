"""Calibration has a breakdown point: one client in a hundred, whatever it sends, moves no fitted number by much."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.calibrate import baseline
from detector.calibrate.weighting import by_halvings, weighed
from models.artefacts.population import fit_population
from models.artefacts.store import load_artefacts
from models.client_shares import LIMIT, fair_rows, quantiles, row_weights
from models.encoders.table import TabularEncoder
from models.encoders.table_fit import TabularFit, fit_table
from models.rows import SURPRISAL_UNIT, U64, blank_rows
from streams.config.config import Config
from streams.config.keys import ConfigError
from streams.fit.calibrate import Report, calibrate
from streams.fit.sample import CLIENT_ROWS_MAX, CLIENT_ROWS_MIN, ROWS_MAX, ClientSample
from streams.history.base import SourceError
from streams.history.sources import open_sources
from streams.progress import Silent
from tests import test_certify
from tests.history import Row, benign, write_jsonl
from tests.test_certify import SECRETS

SEED = bytes(range(32))
CLIENTS, FEW = 400, 4
SHARE = FEW / (CLIENTS + FEW)
PLANS = ("basic", "plus", "pro")


class Sent(NamedTuple):
    """n inputs and who sent each."""

    inputs: list[dict[str, Any]]
    clients: U64

    def fitted(self) -> TabularFit:
        return fit_table(self.inputs, self.clients)


def honest() -> Sent:
    """Numbers on grids, without one, and rarely other than 0; categories; a field that every third client sends; one
    value; identifiers."""
    rng = np.random.default_rng(5)
    inputs, clients = [], []
    for client in range(CLIENTS):
        for _ in range(1 + int(rng.geometric(0.2))):
            row = {
                "amount": round(float(rng.lognormal(3, 1)), 2),
                "age": int(rng.integers(18, 80)),
                "ratio": float(rng.random()),
                "rarely": int(rng.random() < 0.06) * 50,
                "plan": str(rng.choice(PLANS, p=(0.6, 0.3, 0.1))),
                "quoted": str(rng.integers(1, 9)),
                "version": "v1",
                "email": f"{client}@example.org",
                "trace": f"{rng.integers(1 << 62):x}-",
            }
            inputs.append(row | ({"optional": int(rng.integers(5))} if client % 3 == 0 else {}))
            clients.append(client)
    return Sent(inputs, np.array(clients, np.uint64))


HONEST = honest()
FITTED = HONEST.fitted()
NAMES = tuple(HONEST.inputs[0])

odd_texts = st.sampled_from(("NaN", "", "1e999", "0x1", "12.3456789", " 7 ", "\ud800"))
odd_numbers = st.sampled_from((1e300, -1e300, 5e-324, 10**400, 0.1234567, 1 / 3))
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=8),
    odd_texts,
    st.floats(),
    st.integers(),
    odd_numbers,
    st.lists(st.none()),
)
strange_row = st.dictionaries(st.sampled_from((*NAMES, "optional", "other", "")), anything, max_size=12)
strangers = st.lists(
    st.tuples(st.lists(strange_row, min_size=1, max_size=3), st.sampled_from((1, 2, 40, CLIENT_ROWS_MAX))),
    min_size=1, max_size=FEW,
)  # fmt: skip


def joined(others: Sequence[tuple[list[dict[str, Any]], int]]) -> Sent:
    """Everybody, and clients that send their rows again and again."""
    inputs, clients = list(HONEST.inputs), HONEST.clients.tolist()
    for number, (rows, times) in enumerate(others):
        sent = (rows * times)[:CLIENT_ROWS_MAX]
        inputs += sent
        clients += [CLIENTS + number] * len(sent)
    return Sent(inputs, np.array(clients, np.uint64))


WIDTH = 2 * NormalDist().inv_cdf(0.95)


def bounds(values: Sequence[float], clients: U64, share: float) -> tuple[float, float]:
    """Quantiles that SHARE of all clients more or less can reach, among those who send the field."""
    apart = 1.5 * SHARE * CLIENTS / len(np.unique(clients))
    low, high = quantiles(np.array(values, float), row_weights(clients), (share - apart, share + apart))
    return float(low), float(high)


def assert_same_but_for_a_share(after: TabularFit) -> None:
    assert after.names == FITTED.names
    for before, now in zip(FITTED.step.tolist(), after.step.tolist(), strict=True):
        assert now == before or before / 100 * 0.99 < now < before
    assert [taken.kind for taken in after.taken if taken.name in NAMES] == [
        taken.kind for taken in FITTED.taken if taken.name in NAMES
    ]
    for place, name in enumerate(FITTED.names):
        mine = slice(*FITTED.known_start[place : place + 2])
        theirs = slice(*after.known_start[place : place + 2])
        assert after.categories[place][: len(FITTED.categories[place])] == FITTED.categories[place]
        others = dict(zip(after.known[theirs].tolist(), after.known_surprisals[theirs].tolist(), strict=True))
        for value, before in zip(FITTED.known[mine].tolist(), FITTED.known_surprisals[mine].tolist(), strict=True):
            share = math.exp(-before / SURPRISAL_UNIT)
            most = -math.log(share * (1 - 2 * SHARE)) * SURPRISAL_UNIT + 2
            least = -math.log(share + 2 * SHARE) * SURPRISAL_UNIT - 2
            assert least <= others[value] <= most, (name, value)
        if FITTED.categories[place]:
            continue
        has = [row for row, sent in enumerate(HONEST.inputs) if name in sent]
        values, clients = [float(HONEST.inputs[row][name]) for row in has], HONEST.clients[has]
        low, high = bounds(values, clients, 0.5)
        assert low <= after.centre[place] <= high, name
        if name != "rarely":
            (a, b), (c, d) = (bounds(values, clients, share) for share in (0.05, 0.95))
            assert (c - b) / WIDTH <= after.scale[place] * (1 + 1e-9) and after.scale[place] <= (d - a) / WIDTH * (
                1 + 1e-9
            ), name
        assert 0.8 < after.scale[place] / FITTED.scale[place] < 1.25, name


class TestFields:
    def test_fields_are_taken_for_what_most_clients_send(self) -> None:
        taken = {field.name: field for field in FITTED.taken}
        steps = {name: taken[name].step for name in FITTED.names}
        assert steps == {
            "age": 1.0, "amount": 0.01, "optional": 1.0, "plan": 0.0, "quoted": 1.0, "rarely": 1.0, "ratio": 0.0,
        }  # fmt: skip
        assert {name for name in FITTED.names if taken[name].kind == "category"} == {"plan"}
        assert taken["version"].reason == "one value"
        assert "identifier" in taken["email"].reason and "identifier" in taken["trace"].reason
        assert taken["optional"].null == pytest.approx(2 / 3, abs=0.01)

    @settings(max_examples=25, deadline=None)
    @given(strangers)
    def test_few_clients_change_no_field_by_more_than_their_share(
        self, others: list[tuple[list[dict[str, Any]], int]]
    ) -> None:
        assert_same_but_for_a_share(joined(others).fitted())

    @pytest.mark.nightly
    @settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(strangers)
    def test_whatever_they_send(self, others: list[tuple[list[dict[str, Any]], int]]) -> None:
        assert_same_but_for_a_share(joined(others).fitted())

    @pytest.mark.parametrize(
        "alter",
        [
            lambda row: {name: str(value) for name, value in row.items()},
            lambda row: row | {"amount": "NaN"},
            lambda row: row | {"amount": 12.3456789, "age": 30.0000001},
            lambda row: {},
            lambda row: dict.fromkeys(row, None),
            lambda row: dict.fromkeys(row, 1e300),
        ],
        ids=["numbers as text", "NaN as text", "seven decimals", "nothing", "null", "huge"],
    )
    def test_what_was_found(self, alter: Any) -> None:
        """Two accounts with one row each turned every field into a category; one NaN did one."""
        row = HONEST.inputs[0]
        again = joined([([alter(row)], 1), ([alter(row)], 1)]).fitted()
        assert again.step.tolist() == FITTED.step.tolist()
        assert_same_but_for_a_share(again)

    def test_a_row_counts_less_the_more_its_client_sends(self) -> None:
        """Halves of clients, not of rows: one client in ten with a thousand times the rows does not decide a kind."""
        rows = [{"a": number} for number in range(90)] + [{"a": "xy"[number % 2]} for number in range(10_000)]
        clients = np.array([*range(90), *[1_000 + number % 10 for number in range(10_000)]], np.uint64)
        assert fit_table(rows, clients).step.tolist() == [1.0]
        assert fit_table(rows).step.tolist() == [-1.0]

    def test_incomes_in_cents_are_no_attack(self) -> None:
        rows: list[dict[str, Any]] = [{"a": number} for number in range(1_000)]
        clients = np.arange(1_000, dtype=np.uint64)
        for number in range(8):
            rows[number]["a"] += 0.25
        assert fit_table(rows, clients).step.tolist() == [0.01]
        for number in range(8):
            rows[number]["a"] += 0.0000001
        assert fit_table(rows, clients).step.tolist() == [1.0]

    def test_what_people_say_of_fields_holds(self) -> None:
        told: Any = {
            "age": "category",
            "plan": "number",
            "email": "category",
            "version": "category",
            "amount": "leave out",
        }
        fitted = fit_table(HONEST.inputs, HONEST.clients, told)
        taken = {field.name: field for field in fitted.taken}
        assert taken["age"].kind == "category" and "42" in fitted.categories[fitted.names.index("age")]
        assert taken["version"].kind == "category" and taken["amount"].reason == "configured"
        assert taken["plan"].reason == "never a value", "no plan is a number"
        assert taken["email"].kind == "leave out", "no two clients have one"


class TestPopulation:
    encoder = TabularEncoder(FITTED, SEED)
    values = encoder.encode(HONEST.inputs).values

    @settings(max_examples=10, deadline=None)
    @given(strangers)
    def test_few_clients_move_the_population_little(self, others: list[tuple[list[dict[str, Any]], int]]) -> None:
        sent = joined(others)
        before = fit_population(self.values, "e", HONEST.clients)
        kept = [row for row in range(len(sent.inputs)) if row < len(HONEST.inputs) or self.readable(sent.inputs[row])]
        values = self.encoder.encode([sent.inputs[row] for row in kept]).values
        after = fit_population(values, "e", sent.clients[kept])
        one, other = (each.describe(self.values)[0] for each in (before, after))
        assert np.abs(before.centre - after.centre).max() < 0.1
        assert 0.9 < np.median(other / one) < 1.1 and (other / one).min() > 0.7 and (other / one).max() < 1.4
        assert 0.9 < float(after.bandwidth / before.bandwidth) < 1.1
        assert np.abs(before.rff_mean - after.rff_mean).max() < 0.1
        assert 0.9 < distance(after.cells, self.values) / distance(before.cells, self.values) < 1.15

    def readable(self, row: dict[str, Any]) -> bool:
        return not isinstance(row.get("plan"), list) and not self.encoder.encode([row]).faults


def distance(cells: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> float:
    """Mean distance of rows to their nearest cell."""
    apart = values[:, None, :].astype(float) - cells[None, :, :]
    return float(np.sqrt((apart**2).sum(axis=2)).min(axis=1).mean())


class TestShares:
    def test_equal_clients_keep_every_row(self) -> None:
        clients = np.repeat(np.arange(50, dtype=np.uint64), 4)
        assert fair_rows(clients).tolist() == list(range(200))

    def test_each_client_gets_as_many(self) -> None:
        clients = np.repeat(np.arange(100, dtype=np.uint64), [1] * 99 + [901])
        drawn = clients[fair_rows(clients)]
        assert len(drawn) == 1_000 and set(np.bincount(drawn.astype(int)).tolist()) <= {9, 10, 11}

    def test_quantiles_are_of_weight(self) -> None:
        values = np.array([3.0, 1.0, 2.0])
        assert quantiles(values, np.array([1, 1, 2]), (0.25, 0.26, 0.75, 0.76)).tolist() == [1.0, 2.0, 2.0, 3.0]

    def test_a_table_counts_a_client_as_a_few_average_ones_at_most(self) -> None:
        rows_of = [2] * 199 + [300]
        n = sum(rows_of)
        rows = blank_rows(n, 2, 2, client=np.repeat(np.arange(200, dtype=np.uint64), rows_of))
        parts = by_halvings([rows])
        weight = np.zeros(200)
        for halvings, [part] in parts:
            weight += np.bincount(part.client.astype(int), minlength=200) / 2.0**halvings
        assert (weight[:199] == 2).all() and weight.max() <= LIMIT * weight.mean()
        counts = [(halvings, np.array([part.count])) for halvings, [part] in parts]
        assert weighed(counts).tolist() == [round(weight.sum())]

    def test_margins_and_novelty_are_quantiles_of_clients(self) -> None:
        clients = np.repeat(np.arange(1_000, dtype=np.uint64), [1] * 990 + [300] * 10)
        usual = (np.arange(len(clients)) % 100 / 100).astype(np.float32)
        extreme = np.where(clients < 990, usual, 1e6).astype(np.float32)
        rows = blank_rows(len(clients), 2, 2, client=clients, margin=extreme, novelty=extreme)
        assert baseline.low_margins([rows]).tolist() == pytest.approx([0.1] * 3, abs=0.02)
        assert baseline.novelty_edges([rows])[0, :6].tolist() == pytest.approx(baseline.NOVELTY_SHARES[:6], abs=0.02)


class TestSample:
    def test_what_is_drawn_does_not_depend_on_the_order_of_clients(self) -> None:
        """A flood before everybody else, or after, or in between."""
        rows = [(client * 7_919 % 100_003, number) for client in range(3_000) for number in range(30)]
        flood = [(5, number) for number in range(3 * ROWS_MAX)]
        drawn = []
        for order in (flood + rows, rows + flood, rows[:40_000] + flood + rows[40_000:]):
            sample = ClientSample()
            for client, item in order:
                sample.add(client, item)
            items, clients = sample.drawn()
            drawn.append((items, clients.tolist()))
        assert drawn[0] == drawn[1] == drawn[2]
        counts = np.unique(drawn[0][1], return_counts=True)[1]
        assert ROWS_MAX - 50 < len(drawn[0][0]) <= ROWS_MAX and counts.max() == CLIENT_ROWS_MIN

    def test_few_clients_give_many_rows_over_all_of_history(self) -> None:
        sample = ClientSample()
        for number in range(20_000):
            sample.add(number % 3, number)
        items, clients = sample.drawn()
        assert np.bincount(clients.astype(int)).tolist() == [CLIENT_ROWS_MAX] * 3
        assert abs(float(np.median(items)) - 10_000) < 1_500


def calibrated(folder: Path, rows: list[Row], **model: Any) -> Report:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "history.jsonl", rows)
    config = Config(models={"loan": model}) if model else Config()
    return calibrate(open_sources([str(folder / "history.jsonl")], config), folder, config, SECRETS, Silent())


def renamed(rows: list[Row], clients: int) -> list[Row]:
    return [row | {"client_id": f"few-{number % clients}"} for number, row in enumerate(rows)]


class TestCommand:
    def test_fields_are_told(self, tmp_path: Path) -> None:
        rows = [
            row | {"features": row["features"] | {"email": f"{row['client_id']}@x", "version": 3, "spare": None}}
            for row in benign(300, 1)
        ]
        rows[7]["features"]["amount"] = "NaN"
        certificate = calibrated(tmp_path, rows, leave_out=("age",), fields={"term": "category"}).certificate
        fields = {field.name: field for field in certificate.fields["loan"]}
        assert [name for name, field in fields.items() if field.kind == "leave out"] == [
            "age",
            "email",
            "spare",
            "version",
        ]
        assert fields["term"].kind == "category" and fields["term"].levels == 5 and fields["term"].unseen == 0.0
        said = " ".join(certificate.warnings)
        assert "99.8" in said and "of `amount` are numbers, 1 row holds something else: read as missing" in said
        assert "`email`: an identifier" in said and "`version`: one value; left out" in said and "`age`" not in said
        page = (tmp_path / "certificate.md").read_text()
        assert "## Fields" in page and "| `loan` | `term` | category |" in page

    def test_a_field_that_nobody_sends_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"models\.loan\.leave_out: .* sends 'amnt'; its fields are accounts, age"
        ):
            calibrated(tmp_path, benign(60, 1), leave_out=("amnt",))
        with pytest.raises(ConfigError, match=r"models\.loan\.fields\.amnt"):
            calibrated(tmp_path, benign(60, 1), fields={"amnt": "number"})

    def test_small_histories_say_what_they_cannot_promise(self, tmp_path: Path) -> None:
        said = " ".join(calibrated(tmp_path, benign(18, 1)).certificate.warnings)
        assert (
            "clients certify, so no level promises less than 1 in" in said and "watch 99, soft 999, hard 9,999" in said
        )
        assert "clients fit, so what is ordinary is a guess" in said

    def test_one_client_is_told_why_nothing_can_be_fitted(self, tmp_path: Path) -> None:
        [name] = test_certify.TestPatientAttackers().names(fitting=False, count=1)
        rows = [row | {"client_id": name} for row in benign(50, 1)]
        with pytest.raises(SourceError, match="its one client is among the others: a history of dozens of clients"):
            calibrated(tmp_path, rows)

    def test_records_that_cannot_be_read_are_the_reason(self, tmp_path: Path) -> None:
        (tmp_path / "bad.jsonl").write_text("".join(f"[{number}]\n" for number in range(30)))
        sources = open_sources([str(tmp_path / "bad.jsonl")], Config())
        with pytest.raises(SourceError, match="30 records: 30 rejected"):
            calibrate(sources, tmp_path, Config(), SECRETS, Silent())

    def test_a_model_that_a_handful_of_accounts_made_up_is_not_fitted(self, tmp_path: Path) -> None:
        own = [row | {"model": "aaa"} for row in renamed(benign(20, 2), 3)]
        certificate = calibrated(tmp_path, benign(600, 1) + own).certificate
        assert [space.split("@")[0] for space in certificate.spaces] == ["loan"]
        assert "model 'aaa' is not fitted" in " ".join(certificate.warnings)


STRANGE = {
    "text": lambda row, number: {name: str(value) for name, value in row.items()},
    "decimals": lambda row, number: row | {"income": 3000 + number * math.pi, "debt": number / 7e6},
    "flood of one": lambda row, number: row,
    "huge": lambda row, number: dict.fromkeys(row, 1e300 + number),
    "sweep": lambda row, number: row | {"amount": 500 + 50 * number},
    "nothing": lambda row, number: {},
}


QUICK = ("text", "decimals")
SLOW = tuple(kind for kind in STRANGE if kind not in QUICK)


class TestFound:
    """Six of some 750 fitting clients send 200 strange rows each; a standard sweep afterwards."""

    @pytest.fixture(scope="class")
    def plain(self, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
        folder = tmp_path_factory.mktemp("plain")
        return self.found(folder, [])

    @pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.nightly) for kind in SLOW)])
    def test_attacks_are_found_as_soon(self, plain: list[int], kind: str, tmp_path: Path) -> None:
        names = test_certify.TestPatientAttackers().names(fitting=True, count=6)
        base = benign(6, 9)
        rows = [
            row | {"client_id": name, "features": STRANGE[kind](row["features"], number), "ts": row["ts"] + number}
            for name, row in zip(names, base, strict=False)
            for number in range(200)
        ]
        after = self.found(tmp_path, rows)
        assert sorted(after)[5] <= max(sorted(plain)[5] + 1, 1.1 * sorted(plain)[5])

    def found(self, folder: Path, rows: list[Row]) -> list[int]:
        calibrated(folder, benign(2_000, 1) + rows)
        return test_certify.TestPatientAttackers().found_after(load_artefacts(folder, SECRETS.projection_seed), folder)
