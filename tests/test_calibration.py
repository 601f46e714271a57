"""Calibration on generated histories: splits, tables, thresholds, artefacts on disk."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from detector import evidence
from detector.calibrate import fit
from detector.calibrate.certify import DEFAULT_THRESHOLDS, certify
from detector.calibrate.client_days import first_rows, select
from detector.calibrate.fit import daily_maxima, fit_reference, is_fitting, trace
from models.artefacts.manifest import MANIFEST
from models.artefacts.reference import Reference
from models.artefacts.signing import public_key
from models.artefacts.store import ArtefactError, ModelArtefact, load_artefacts, save_artefacts
from models.client_table import ClientTable, no_tally
from models.encoders.table import TabularEncoder, fit_table
from models.kernels.layout import VERDICT
from models.rows import Rows, blank_rows

SEED = bytes(range(32))
KEY = bytes(range(1, 33))
TRUSTED = [public_key(KEY)]
DAY_MS = 86_400_000
NAMES = ("age", "income", "purpose", "term")


def _inputs(rng: np.random.Generator, n: int) -> list[dict[str, float | str]]:
    ages, incomes = rng.integers(18, 80, n).tolist(), (rng.lognormal(10, 0.5, n) // 100 * 100).tolist()
    purposes, terms = rng.choice(["car", "house", "other"], n).tolist(), rng.choice([36, 60], n).tolist()
    return [dict(zip(NAMES, row, strict=True)) for row in zip(ages, incomes, purposes, terms, strict=True)]


def _rows(encoder: TabularEncoder, rng: np.random.Generator, clients: int, per_client: int) -> Rows:
    """Every client sends one input and edits of it, over two days."""
    inputs, owner = [], []
    for client in range(clients):
        own = _inputs(rng, 1)[0]
        for edit in range(per_client):
            inputs.append(own | ({"age": int(own["age"]) + edit} if edit else {}))
            owner.append(client)
    n = len(inputs)
    encoded = encoder.encode(inputs)
    keys = (np.array(owner, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    scores = rng.random(n).astype(np.float32)
    return blank_rows(
        n, 0, 0,
        offset=np.arange(n), client=keys, time_ms=1_700_000_000_000 + (np.arange(n) * 2 * DAY_MS) // n,
        exact=encoded.exact, values=encoded.values, fields=encoded.fields, surprisal=encoded.surprisal,
        offgrid=encoded.offgrid, output=(scores > 0.5).astype(np.uint32) + 1, score=scores,
        margin=np.abs(scores - 0.5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> TabularEncoder:
    return TabularEncoder(fit_table(_inputs(np.random.default_rng(1), 2_000)), SEED)


@pytest.fixture(scope="module")
def rows(encoder: TabularEncoder) -> Rows:
    return _rows(encoder, np.random.default_rng(2), 1_200, 3)


def _fitted(encoder: TabularEncoder, rows: Rows, *, cold: bool = False) -> Reference:
    """Fitted and certified, as `calibrate` does."""
    batches = first_rows([rows], fit.COLD_ROWS) if cold else [rows]
    reference = fit_reference(encoder, 0.5, batches, cold=cold)
    certifying = [select(part, ~is_fitting(part.client)) for part in batches]
    return certify([daily_maxima(encoder, 0.5, reference, certifying)], cold=cold).applied(reference)


def test_no_client_both_fits_and_certifies(rows: Rows, encoder: TabularEncoder) -> None:
    """Changing what certifying clients did moves thresholds and nothing else."""
    before = _fitted(encoder, rows)
    fitting = is_fitting(rows.client)
    assert 0.3 < fitting.mean() < 0.45
    changed = rows.margin.copy()
    changed[~fitting] = 0.0
    after = _fitted(encoder, rows._replace(margin=changed))
    for name in ("family", "field", "rarity", "client", "novelty", "tail", "tail_scale", "growth", "low_margin"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert not np.array_equal(before.thresholds, after.thresholds)
    assert before.certifying_clients[0] == len(np.unique(rows.client[~fitting]))


def test_tables_say_what_was_counted(rows: Rows, encoder: TabularEncoder) -> None:
    """Benign variants here edit `age` and nothing else, so an edit of `age` is the least surprising one."""
    reference = fit_reference(encoder, 0.5, [rows])
    assert int(np.argmin(reference.rarity[0])) == NAMES.index("age")
    sweeper = [process.name for process in evidence.PROCESSES].index("field")
    by_field = reference.field[0, : len(NAMES), sweeper]
    assert int(np.argmin(by_field)) == NAMES.index("age")
    assert by_field[NAMES.index("income")] > 0


def test_a_reference_that_is_not_certified_never_alarms(rows: Rows, encoder: TabularEncoder) -> None:
    reference = fit_reference(encoder, 0.5, [rows])
    assert (reference.thresholds >= fit.UNREACHABLE).all()
    assert not reference.certified.any()


def test_thresholds_rise_with_the_level_and_budgets_out_of_reach_say_so(rows: Rows, encoder: TabularEncoder) -> None:
    reference = _fitted(encoder, rows)
    assert np.all(np.diff(reference.thresholds[:, 1:], axis=1) >= 0)
    assert reference.certified[0].tolist() == [False, True, False, False, False]
    assert not reference.certified[1:].any()
    assert reference.promised[0, 1] == 1e-2
    assert reference.promised[0, 4] == 1 / (1 + reference.certifying_clients[0])
    assert np.all(reference.promised[1:] == 1.0)


def test_classes_without_clients_are_held_like_consumers(rows: Rows, encoder: TabularEncoder) -> None:
    reference = _fitted(encoder, rows)
    assert np.array_equal(reference.thresholds[1], reference.thresholds[0])
    assert np.array_equal(reference.thresholds[2], reference.thresholds[0])


def test_cold_histories_cannot_raise_thresholds(encoder: TabularEncoder) -> None:
    """One client that does nothing but probe would otherwise set everybody's threshold."""
    rows = _rows(encoder, np.random.default_rng(3), 40, 60)
    reference = _fitted(encoder, rows, cold=True)
    assert np.all(reference.thresholds <= np.array(DEFAULT_THRESHOLDS))
    assert not reference.certified.any()
    assert sum(batch.count for batch in first_rows([rows], fit.COLD_ROWS)) == fit.COLD_ROWS * 40


def test_an_empty_history_gives_the_default_thresholds(encoder: TabularEncoder, rows: Rows) -> None:
    empty = Rows(*(column[:0] if name != "id_offsets" else column[:1] for name, column in rows._asdict().items()))
    reference = _fitted(encoder, empty)
    assert reference.certifying_clients.tolist() == [0, 0, 0]
    assert np.array_equal(reference.thresholds, np.tile(DEFAULT_THRESHOLDS, (3, 1)))


def test_a_client_day_is_what_its_rows_came_to_on_the_clients_own_clock(rows: Rows, encoder: TabularEncoder) -> None:
    """Days turn when the client's clock does: a record with an older time belongs to the day that runs."""
    late = rows.time_ms.copy()
    owner = rows.client == rows.client[0]
    late[np.flatnonzero(owner)] = late[0] + np.array([0, DAY_MS, -DAY_MS])
    rows = rows._replace(time_ms=late)
    reference = fit_reference(encoder, 0.5, [rows])
    days, traced = daily_maxima(encoder, 0.5, reference, [rows]), trace(encoder, 0.5, reference, [rows])[0]
    own = days.client == rows.client[0]
    first = int(late[0]) // DAY_MS
    assert days.day[own].tolist() == [first, first + 1]
    assert days.rows[own].tolist() == [1, 2]
    at = np.flatnonzero(owner)
    assert days.statistic[own].tolist() == [int(traced[at[0]]), int(traced[at[1:]].max())]
    assert days.variants[own].tolist()[0] == 0
    assert days.rows.sum() == rows.count


class TestArtefacts:
    @pytest.fixture
    def saved(self, tmp_path: Path, encoder: TabularEncoder, rows: Rows) -> Path:
        reference = _fitted(encoder, rows)
        save_artefacts(tmp_path, [ModelArtefact("loan", encoder, reference, 0.5, {7: "accept"})], {"by": "a test"}, KEY)
        return tmp_path

    def test_what_is_saved_is_what_is_loaded(self, saved: Path, encoder: TabularEncoder, rows: Rows) -> None:
        loaded = load_artefacts(saved, SEED, TRUSTED)
        model = loaded.models["loan"]
        assert model.space == f"loan@{encoder.id}"
        assert model.labels == {7: "accept"}
        reference = _fitted(encoder, rows)
        for field in dataclasses.fields(reference):
            assert np.array_equal(getattr(model.reference, field.name), getattr(reference, field.name)), field.name
        inputs = _inputs(np.random.default_rng(9), 50)
        for one, other in zip(model.encoder.encode(inputs)[:5], encoder.encode(inputs)[:5], strict=True):
            assert np.array_equal(one, other)

    def test_saving_twice_gives_the_same_hash(self, saved: Path, tmp_path: Path) -> None:
        model = load_artefacts(saved, SEED, TRUSTED).models["loan"]
        first = save_artefacts(tmp_path / "a", [model], {}, KEY)
        second = save_artefacts(tmp_path / "b", [model], {}, KEY)
        assert first == second == load_artefacts(tmp_path / "b", SEED, TRUSTED).hash

    def test_another_seed_is_refused(self, saved: Path) -> None:
        with pytest.raises(ArtefactError, match="another projection seed"):
            load_artefacts(saved, bytes(32), TRUSTED)

    def test_an_altered_file_is_refused(self, saved: Path) -> None:
        file = saved / "model-0.npz"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(ArtefactError, match="altered"):
            load_artefacts(saved, SEED, TRUSTED)

    def test_a_missing_folder_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(ArtefactError, match="probewatch calibrate"):
            load_artefacts(tmp_path / "nothing", SEED)

    def test_another_layout_is_refused(self, saved: Path) -> None:
        manifest = json.loads((saved / MANIFEST).read_text())
        (saved / MANIFEST).write_text(json.dumps(manifest | {"schema": "probewatch.artefacts/0"}))
        with pytest.raises(ArtefactError, match="calibrate again"):
            load_artefacts(saved, SEED, TRUSTED)


def test_a_machine_that_goes_round_a_few_inputs_repeats_and_does_not_probe(encoder: TabularEncoder, rows: Rows) -> None:
    """A health check that cycles through ten near-duplicates: each is a variant once, a repeat ever after."""
    cycle = _rows(encoder, np.random.default_rng(4), 1, 10)
    often = Rows(
        *(
            np.concatenate([column] * 20) if name not in ("id_offsets", "id_bytes") else column
            for name, column in cycle._asdict().items()
        )
    )
    often = often._replace(
        offset=np.arange(often.count), id_offsets=np.zeros(often.count + 1, np.int32), id_bytes=np.zeros(0, np.uint8),
        time_ms=often.time_ms[0] + np.arange(often.count) * 60_000,
    )  # fmt: skip
    reference = _fitted(encoder, rows)
    nulls = evidence.nulls(reference, encoder.reach, encoder.agreement_min, 0.5)
    table = ClientTable(encoder.dim, encoder.dim, evidence.FAMILY_PROCESSES, evidence.JOINT, 1, 1 << 30)
    start, verdict = 0, np.zeros(VERDICT, np.int64)
    while start < often.count:
        tally = no_tally(encoder.dim, len(evidence.PROCESSES))
        start, _ = table.fold(nulls, table.batch(often), np.zeros(1, np.int64), start, tally, verdict)
    client = table.table.clients[0]
    assert int(client["rows"]) == 200
    assert int(client["repeats"]) == 190
