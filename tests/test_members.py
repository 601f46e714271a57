"""Training rows: the same input is the same row however it is written, whatever was fitted; others are others."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artefacts.training_set import BITS_PER_ROW, Members, MembersError, add, empty_bits
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, fit_table
from models.rows import U64
from tests.reference.members import places, row_key

SEED = bytes(range(32))
KINDS = {"age": "number", "income": "number", "owner": "number", "purpose": "category", "zone": "category"}

Row = dict[str, Any]


def person(rng: random.Random) -> Row:
    row: Row = {
        "age": float(rng.randint(18, 80)),
        "income": round(rng.gauss(3_000, 800), 2),
        "owner": rng.random() < 0.5,
        "purpose": rng.choice(("car", "house", "1", "True", "ünï")),
        "zone": rng.choice("abcdef"),
    }
    return {name: value for name, value in row.items() if rng.random() > 0.05}


def people(n: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    return [person(rng) for _ in range(n)]


def keys_of(rows: Sequence[Row], kinds: Mapping[str, str] = KINDS, seed: bytes = SEED) -> U64:
    keys, faults = TabularEncoder.row_keys({"fields": dict(kinds)}, seed)(rows)
    assert not faults
    return keys


def members_of(rows: Sequence[Row], kinds: Mapping[str, str] = KINDS, seed: bytes = SEED) -> Members:
    bits = empty_bits(len(rows))
    add(bits, keys_of(rows, kinds, seed))
    return Members("", "tabular", {"fields": dict(kinds)}, len(rows), bits, seed)


def encoder_on(rows: Sequence[Row], seed: bytes = SEED) -> TabularEncoder:
    return TabularEncoder(fit_table(rows), seed)


def found(members: Members, encoder: TabularEncoder, rows: Sequence[Row]) -> list[bool]:
    return list(members.lookup(encoder).contains(encoder.encode(rows)))


anything = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
        if kind == "number"
        else st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=4))
        for name, kind in KINDS.items()
    },
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(anything, min_size=1, max_size=6))
def test_keys_and_bits_are_those_of_the_slow_twin(rows: list[Row]) -> None:
    slow = [row_key(row, KINDS, SEED) for row in rows]
    assert keys_of(rows).tolist() == slow
    bits = empty_bits(len(rows))
    add(bits, keys_of(rows))
    set_bits = {64 * word + bit for word, value in enumerate(bits.tolist()) for bit in range(64) if value >> bit & 1}
    assert set_bits == set().union(*(places(key, 64 * len(bits)) for key in slow))


def test_a_row_is_found_whatever_the_encoder_was_fitted_to() -> None:
    """Categories in another order, categories that the history never had, fields that the set does not have."""
    rows = people(2_000, 1)
    members = members_of(rows)
    one = encoder_on([row | {"channel": "web"} for row in people(500, 2)])
    others = zip("xyz" * 200, people(500, 3), strict=False)
    other = encoder_on([row | {"purpose": f"boat {sign}", "zone": sign} for sign, row in others])
    assert one.fitted.categories != other.fitted.categories
    strangers = [row | {"age": 200.0} for row in people(2_000, 4)]
    for encoder in (one, other):
        assert all(found(members, encoder, [row | {"channel": "branch"} for row in rows]))
        assert sum(found(members, encoder, strangers)) <= 2


def test_one_in_ten_thousand_others_is_taken_for_a_member_at_most() -> None:
    rows = people(5_000, 5)
    members = members_of(rows)
    assert members.false_positive_rate <= 1e-4
    assert members.bits.nbytes * 8 <= BITS_PER_ROW * 5_000 + 64
    encoder = encoder_on(people(500, 6))
    others = [row | {"income": 1e6 + number} for number, row in enumerate(people(100_000, 7))]
    false = sum(found(members, encoder, others))
    assert 0 <= false <= 20, "expected 6.7 in 100,000 when every row of the set is another"
    assert all(found(members, encoder, rows))


@pytest.mark.parametrize(
    ("name", "written", "the_same", "another"),
    [
        ("owner", 1.0, [1, 1.0, True], [0.0, False, None, 1.0000001]),
        ("owner", -0.0, [0, 0.0, False], [None, 5e-324]),
        ("income", 2.0**60, [2**60], [2.0**60 + 256]),
        ("purpose", "1", ["1", 1, 1.0], ["1.0", True, " 1", "", None]),
        ("purpose", True, ["true", True], ["True", 1.0, "1"]),
        ("purpose", 1.0, ["1", 1.0], ["1.0", True]),
        ("purpose", "", [""], [None, " "]),
        ("zone", None, [None], ["None", "", "a"]),
        ("age", None, [None], [0.0]),
    ],
)
def test_values_are_the_same_where_the_encoder_holds_them_the_same(
    name: str, written: Any, the_same: list[Any], another: list[Any]
) -> None:
    base = {"age": 40.0, "income": 3_000.5, "owner": True, "purpose": "car", "zone": "a"}
    encoder = encoder_on(people(500, 8))
    members = members_of([base | {name: written}])
    same_rows = [base | {name: value} for value in the_same]
    other_rows = [base | {name: value} for value in another]
    assert all(found(members, encoder, same_rows)) and not any(found(members, encoder, other_rows))
    place = encoder.field_names.index(name)
    held = encoder.encode([base | {name: written}, *same_rows, *other_rows]).fields[:, place].tolist()
    assert len(set(held[: 1 + len(same_rows)])) == 1
    assert held[0] not in held[1 + len(same_rows) :]


def test_a_missing_field_and_null_are_the_same() -> None:
    members = members_of([{"age": 3.0, "zone": None}])
    assert found(members, encoder_on(people(500, 8)), [{"age": 3.0}, {"zone": None, "age": 3}, {}]) == [
        True, True, False
    ]  # fmt: skip


def test_embeddings_are_found_by_their_float32_numbers() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((500, 24)).astype(np.float32)
    encoder, other = EmbeddingEncoder(24, 0.3, SEED), EmbeddingEncoder(24, 0.6, SEED)
    bits = empty_bits(500)
    add(bits, encoder.encode(list(vectors)).exact)
    lookup = Members("", "embedding", {"dim": 24}, 500, bits, SEED).lookup(other)
    assert lookup.contains(other.encode(vectors.tolist())).all()
    assert not lookup.contains(other.encode(list(np.nextafter(vectors, np.float32(9))))).any()


def test_sets_that_do_not_fit_say_why() -> None:
    encoder = encoder_on(people(500, 9))
    members = members_of(people(10, 9))
    assert members.misfit(encoder) == ""
    foreign = members_of([{"age": 1.0, "label": 1.0, "id": 7.0}], {"age": "number", "id": "number", "label": "number"})
    assert "did not find the fields id, label" in foreign.misfit(encoder)
    kinds = members_of([{"age": "old"}], {"age": "category"})
    assert "field age: expected a number, as in the model's log; got a category" in kinds.misfit(encoder)
    embeddings = Members("", "embedding", {"dim": 8}, 1, empty_bits(1), SEED)
    assert "expected tabular rows; got embedding rows" in embeddings.misfit(encoder)
    assert "expected embeddings of 9 numbers; got embeddings of 8" in embeddings.misfit(EmbeddingEncoder(9, 0.3, SEED))
    assert "expected embedding rows; got tabular rows" in members.misfit(EmbeddingEncoder(9, 0.3, SEED))
    with pytest.raises(MembersError, match="did not find the fields"):
        foreign.lookup(encoder)


def test_what_is_stored_is_what_comes_back_and_no_other() -> None:
    members = members_of(people(100, 10))
    arrays = members.arrays()
    again = Members.from_arrays(arrays, SEED)
    assert again is not None and np.array_equal(again.bits, members.bits)
    assert dataclasses.replace(again, bits=members.bits) == members
    assert Members.from_arrays({}, SEED) is None
    with pytest.raises(MembersError, match="another projection seed"):
        Members.from_arrays(arrays, bytes(32))
    fuller = arrays | {"members.bits": arrays["members.bits"] | np.uint64(1 << 40)}
    header = arrays["members.header"].tobytes().replace(b'"rows": 100', b'"rows": 999')
    renamed = arrays | {"members.header": np.frombuffer(header, np.uint8)}
    cut = arrays | {"members.header": arrays["members.header"][:-5]}
    for altered, reason in ((fuller, "altered"), (renamed, "altered"), (cut, "damaged")):
        with pytest.raises(MembersError, match=reason):
            Members.from_arrays(altered, SEED)


def test_without_the_seed_nothing_can_be_tested() -> None:
    rows = people(1_000, 11)
    members = members_of(rows)
    guessed = dataclasses.replace(members, seed=bytes(32))
    assert sum(found(guessed, encoder_on(people(500, 9), bytes(32)), rows)) <= 2
    assert SEED.hex() not in repr(members) and repr(SEED) not in repr(members)
