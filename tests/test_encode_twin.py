"""Encoders equal their slow twins to the last bit, and do what they are for: keep distances, hide fields."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoders.base import Encoded
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, fit_table
from tests.reference.encode import Code, Column, SlowEmbedding, SlowTable

SEED = bytes(range(32))
WORDS = ("car", "house", "education", "other", "ünï", "3", "True")


def one_input(rng: np.random.Generator, fields: int) -> dict[str, Any]:
    """Integers, cents, continuous numbers, categories, booleans, holes and heavy tails, by turns."""
    made: dict[str, Any] = {}
    for i in range(fields):
        kinds = (
            int(rng.integers(-5, 60)), round(float(rng.normal(0, 400)), 2), float(rng.normal()),
            str(rng.choice(WORDS[:4])), bool(rng.integers(0, 2)), float(np.rint(rng.lognormal(3, 2))) * 10.0, -0.0,
        )  # fmt: skip
        if rng.random() > 0.1:
            made[f"f{i:02d}"] = kinds[i % len(kinds)]
    return made


def encoder_of(fields: int, seed: int = 1) -> TabularEncoder:
    rng = np.random.default_rng(seed)
    return TabularEncoder(fit_table([one_input(rng, fields) for _ in range(400)]), SEED)


def twin_of(encoder: TabularEncoder) -> SlowTable:
    fit = encoder.fitted
    columns = []
    for j, name in enumerate(fit.names):
        start, end = fit.known_start[j : j + 2].tolist()
        known = dict(zip(fit.known[start:end].tolist(), fit.known_surprisals[start:end].tolist(), strict=True))
        numbers = (each[j].item() for each in (fit.centre, fit.scale, fit.step, fit.low, fit.high, fit.required))
        columns.append(
            Column(name, fit.categories[j], *numbers, known, fit.unknown[j].item(), fit.missing[j].item())
        )  # fmt: skip
    return SlowTable(columns, encoder._order.tolist(), encoder._rotation.tolist(), SEED, fit.present_min)


def same(encoded: Encoded, row: int, slow: Code | None) -> None:
    ours = Code(
        encoded.values[row].tolist(), encoded.fields[row].tolist(), encoded.surprisal[row].tolist(),
        int(encoded.offgrid[row]), int(encoded.exact[row]), row not in {fault.row for fault in encoded.faults},
        int(encoded.odd[row]),
    )  # fmt: skip
    if slow is None:
        assert ours == Code([0] * len(ours.values), [0] * len(ours.fields), [0] * len(ours.fields), 0, 0, False)
        assert not encoded.usable[row]
    else:
        assert ours == slow


@pytest.mark.parametrize("fields", [1, 2, 7, 23, 64, 70, 130])
def test_tables(fields: int) -> None:
    encoder = encoder_of(fields)
    twin = twin_of(encoder)
    rng = np.random.default_rng(fields)
    inputs = [one_input(rng, fields) for _ in range(60)]
    encoded = encoder.encode(inputs)
    for row, features in enumerate(inputs):
        same(encoded, row, twin.encode(features))
    assert encoded.surprisal.any() and len(np.unique(encoded.exact)) > 10


_seven = encoder_of(7)
_twin_of_seven = twin_of(_seven)
anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(WORDS), st.text(max_size=20),
    st.sampled_from(["36", " 3.60 ", "-1e3", "1_0", "0x1", "1e999", "", "NaN", "٣"]),
    st.sampled_from([0.1 + 0.2, 59.99, 1e15, 2.0**63, 1e20, 1e300, -1.7e308, 5e-324, 10**400, -(10**20)]),
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.dictionaries(st.sampled_from([*_seven.field_names, "other", "ünï", ""]), anything), max_size=5))
def test_whatever_a_log_may_hold(inputs: list[dict[str, Any]]) -> None:
    """Values no history ever had, of any kind and size; and a fault in one row leaves its neighbours alone."""
    encoded = _seven.encode(inputs)
    for row, features in enumerate(inputs):
        same(encoded, row, _twin_of_seven.encode(features))


BASE = {"f00": 36.0, "f02": 0.5, "f03": "car"}


def test_numbers_in_quotes_are_numbers_and_what_cannot_be_read_is_missing() -> None:
    encoder = encoder_of(7)
    rows = [BASE | {"f01": 1.5}, BASE | {"f00": "36", "f01": " 1.50 "}, BASE, BASE | {"f01": float("nan")}]
    plain, quoted, holed, bad = encoder.encode(rows).values.tolist()
    assert plain == quoted and holed == bad != plain
    encoded = encoder.encode([BASE | {"f01": value} for value in ([1], {"a": 1}, "x", "", float("inf"), None)])
    assert [fault.row for fault in encoded.faults] == [0, 1, 2, 3, 4]
    assert {fault.field for fault in encoded.faults} == {"features.f01"} and encoded.usable.all()
    assert len(set(encoded.exact.tolist())) == 6, "another value that cannot be read is another input"
    assert [fault.field for fault in encoder.encode([BASE | {"f03": [1], "x": [2]}]).faults] == [
        "features",
        "features.f03",
    ]


def test_what_is_no_field_belongs_to_the_identity_in_any_order() -> None:
    encoder = encoder_of(7)
    others = [{"x": number} for number in range(8_000)] + [{"y": 1}, {"x": "1"}, {"x": True, "y": 1}, {"x": "a" * 9}]
    encoded = encoder.encode([BASE | other for other in others])
    assert len(set(encoded.exact.tolist())) == len(others)
    assert len(np.unique(encoded.values, axis=0)) == 1 and not encoded.faults
    turned = {"y": "b", **BASE, "x": 2, "z": None}
    one, other = encoder.encode([turned, dict(reversed(turned.items()))]).exact
    assert one == other == encoder.encode([BASE | {"x": 2.0, "y": "b"}]).exact[0] != encoder.encode([BASE]).exact[0]


@pytest.mark.parametrize("count", [31, 32, 33, 200])
def test_many_members_that_are_no_field_s(count: int) -> None:
    encoder = encoder_of(7)
    many = BASE | {f"x{number}": number if number % 2 else str(number) for number in range(count)} | {"y": None}
    changed = [many, dict(reversed(many.items())), many | {"x7": "7"}, many | {"x7": [1]}, many | {"f01": "bad"}]
    encoded = encoder.encode(changed)
    assert encoded.exact[0] == encoded.exact[1] and len(set(encoded.exact.tolist())) == 4
    for row, features in enumerate(changed):
        same(encoded, row, twin_of(encoder).encode(features))


def test_a_row_with_hardly_a_known_field_is_not_usable_and_renamed_ones_differ() -> None:
    encoder = encoder_of(23)
    rng = np.random.default_rng(8)
    rows = [one_input(rng, 23) for _ in range(50)]
    assert encoder.encode(rows).usable.all() and 1 < encoder.fitted.present_min <= 6
    renamed = encoder.encode([{f"{name}X": value for name, value in row.items()} for row in rows] + [{}])
    assert not renamed.usable.any() and not renamed.values.any() and not renamed.fields.any()
    assert len(set(renamed.exact.tolist())) == 51 and not renamed.faults


@pytest.mark.parametrize("fields", [2, 23, 64, 70])
def test_rotation_keeps_lengths(fields: int) -> None:
    encoder = encoder_of(fields)
    for block in range(0, fields, 64):
        turn = encoder._rotation[block : block + 64, : min(64, fields - block)]
        assert np.abs(turn @ turn.T - np.eye(len(turn))).max() < 1e-12
    assert sorted(encoder._order.tolist()) == list(range(fields))


def test_distances_are_those_of_standard_units_and_fields_cannot_be_read_off() -> None:
    """One field moved by one unit: the code moves by one unit, spread over many numbers."""
    encoder = encoder_of(23)
    base = {name: 20.0 for name, names in zip(encoder.field_names, encoder.fitted.categories, strict=True) if not names}
    place = encoder.field_names.index("f07")  # of integers
    moved = base | {"f07": 20.0 + encoder.fitted.scale[place]}
    one, other = encoder.encode([base, moved]).values.astype(float)
    assert math.isclose(np.linalg.norm(one - other) / 2048, 1.0, abs_tol=0.01)
    assert np.abs(one - other).max() / 2048 < 0.8
    assert (one != other).sum() > 15


def test_another_seed_shares_nothing() -> None:
    first = encoder_of(23)
    second = TabularEncoder(first.fitted, bytes(32))
    inputs = [one_input(np.random.default_rng(3), 23) for _ in range(20)]
    one, other = first.encode(inputs), second.encode(inputs)
    assert (one.fields == other.fields).mean() < 0.01
    assert not set(one.exact.tolist()) & set(other.exact.tolist())
    assert first.id != second.id


@pytest.mark.parametrize("dim", [1, 3, 64, 384])
def test_embeddings(dim: int) -> None:
    encoder, twin = EmbeddingEncoder(dim, 0.25, SEED), SlowEmbedding(dim, SEED)
    rng = np.random.default_rng(dim)
    vectors = rng.standard_normal((12, dim)).astype(np.float32)
    vectors[1] *= np.float32(1e-30)
    vectors[2] *= np.float32(1e30)
    vectors[3] = 0.0
    vectors[4, 0] = np.nan
    vectors[5, dim - 1] = -np.inf
    vectors[6] = np.where(np.arange(dim) % 2, vectors[6], 0)
    encoded = encoder.encode(list(vectors))
    for row, vector in enumerate(vectors.tolist()):
        same(encoded, row, twin.encode(vector))
    assert {fault.row for fault in encoded.faults} >= {3, 4, 5}
    assert [place for place, fine in enumerate(encoded.usable) if not fine] == sorted(
        {fault.row for fault in encoded.faults}
    )
    lists = encoder.encode([*vectors.tolist()[:3], [1.0] * (dim + 1)])
    assert np.array_equal(lists.values[:3], encoded.values[:3])
    assert [fault.row for fault in lists.faults] == [3]


def test_projection_estimates_cosine_distance() -> None:
    """64 random signs: within 40 % for 99 in 100 pairs, unbiased in the mean (Achlioptas 2003)."""
    encoder = EmbeddingEncoder(384, 0.25, SEED)
    rng = np.random.default_rng(4)
    base = rng.standard_normal((300, 384)).astype(np.float32)
    near = base + 0.1 * rng.standard_normal(base.shape).astype(np.float32)
    unit = base / np.linalg.norm(base, axis=1, keepdims=True), near / np.linalg.norm(near, axis=1, keepdims=True)
    truth = np.linalg.norm(unit[0] - unit[1], axis=1)
    codes = encoder.encode(list(base)).values.astype(float) - encoder.encode(list(near)).values
    ratio = np.linalg.norm(codes, axis=1) / 2048 / truth
    assert abs(ratio.mean() - 1.0) < 0.02
    assert np.quantile(np.abs(ratio - 1.0), 0.99) < 0.4


def test_whole_numbers_of_any_size_are_on_their_grid() -> None:
    encoder = encoder_of(7)
    big = [BASE | {"f00": 10.0**power} for power in range(0, 300, 7)]
    assert not encoder.encode(big).offgrid.any()
    assert encoder.encode([BASE | {"f00": 0.5}]).offgrid.all()
