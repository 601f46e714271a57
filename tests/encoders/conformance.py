"""What every encoder must do, as functions that raise AssertionError: for registered encoders, and for bad ones."""

import json
from collections.abc import Callable

import numpy as np

from models.encoders.base import Encoded, Encoder
from streams.adapters.request import Request
from streams.wire.frames import WIDTH_MAX

SEED, OTHER_SEED = bytes(range(32)), bytes(32)
COUNT = 40
UNIT = 2048
SECRET = "5550123"
UNREADABLE = (SECRET, {SECRET: [SECRET]}, {"a": SECRET}, [], float("nan"))
"""Values that no log of the right kind holds, or that one encoder cannot read; some are good inputs for another."""


def fitted(kind: type[Encoder], seed: bytes = SEED) -> Encoder:
    encoder = kind.fit(kind.examples(COUNT), seed)
    assert encoder is not None, "fits its own examples"
    return encoder


def row(encoded: Encoded, place: int) -> tuple[bytes, ...]:
    return tuple(column[place].tobytes() for column in encoded[:7])


def is_declared(kind: type[Encoder]) -> None:
    encoder = fitted(kind)
    assert kind.reads in Request.__struct_fields__ and len(kind.examples(COUNT)) >= COUNT
    assert 1 <= encoder.dim <= WIDTH_MAX and encoder.reach > 0 and encoder.agreement_min >= 0
    assert len(encoder.id) == 16 and int(encoder.id, 16) >= 0
    assert kind.fit([], SEED) is None


def has_the_shapes(kind: type[Encoder]) -> None:
    encoder, examples = fitted(kind), kind.examples(COUNT)
    for n in (0, len(examples)):
        encoded, f = encoder.encode(examples[:n]), len(encoder.field_names)
        assert [column.shape for column in encoded[:7]] == [(n, encoder.dim), (n, f), (n, f), (n,), (n,), (n,), (n, f)]
        assert [column.dtype for column in encoded[:7]] == ["<i2", "<u2", "u1", "<u4", "<u8", "<u4", "<f8"]
        assert not encoded.faults and encoded.usable.all() and encoded.usable.dtype == np.bool_
        assert encoder.standard(encoded.values).shape == (n, encoder.dim)


def does_not_depend_on_neighbours(kind: type[Encoder]) -> None:
    encoder, examples = fitted(kind), kind.examples(COUNT)
    whole = encoder.encode(examples)
    backwards = encoder.encode(examples[::-1])
    for place, given in enumerate(examples):
        alone = encoder.encode([given])
        assert row(whole, place) == row(alone, 0) == row(backwards, len(examples) - 1 - place), place


def depends_on_the_seed_alone(kind: type[Encoder]) -> None:
    examples = kind.examples(COUNT)
    one, again, other = fitted(kind), fitted(kind), fitted(kind, OTHER_SEED)
    assert one.id == again.id != other.id
    columns = zip(one.encode(examples)[:6], again.encode(examples)[:6], strict=True)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in columns)
    assert not set(one.encode(examples).exact.tolist()) & set(other.encode(examples).exact.tolist())


def comes_back_from_arrays(kind: type[Encoder]) -> None:
    encoder, examples = fitted(kind), kind.examples(COUNT)
    header = json.loads(json.dumps(encoder.header()))
    again = kind.from_arrays({"kind": kind.kind, **header}, encoder.to_arrays(), SEED)
    assert (again.id, again.dim, again.field_names) == (encoder.id, encoder.dim, encoder.field_names)
    assert (again.reach, again.agreement_min) == (encoder.reach, encoder.agreement_min)
    assert row(again.encode(examples), 0) == row(encoder.encode(examples), 0)
    assert kind.from_arrays(header, encoder.to_arrays(), OTHER_SEED).id != encoder.id
    assert SEED not in header.__repr__().encode() and SEED.hex() not in repr(header)


def faults_are_values(kind: type[Encoder]) -> None:
    """Whatever is given: a row, or a fault that names the field and never the value; neighbours are untouched."""
    encoder, [good, *_] = fitted(kind), kind.examples(COUNT)
    expected = row(encoder.encode([good]), 0)
    for bad in UNREADABLE:
        if type(bad) is not type(good):
            continue
        encoded = encoder.encode([good, bad, good])
        assert row(encoded, 0) == row(encoded, 2) == expected
        assert {fault.row for fault in encoded.faults} <= {1}
        for fault in encoded.faults:
            assert SECRET not in repr(fault) and fault.field.split(".")[0] == kind.reads
        if not encoded.usable[1]:
            assert not encoded.values[1].any() and not encoded.fields[1].any()
    assert list(encoder.encode([good, good]).faults) == []


def keeps_order_of_distances(kind: type[Encoder]) -> None:
    """Along a probe's walk inputs move away from the first: its neighbours lie nearer than the end, equal ones at 0."""
    encoder, quarter = fitted(kind), COUNT // 4
    values = encoder.encode(list(encoder.probe(np.random.default_rng(1), COUNT))).values.astype(float)
    from_start = np.linalg.norm(values - values[0], axis=1) / UNIT
    assert 0 < from_start[1] < from_start[-quarter:].mean()
    assert from_start[:quarter].mean() < from_start[-quarter:].mean()


def accepts_its_own_probe(kind: type[Encoder]) -> None:
    encoder = fitted(kind)
    probe = list(encoder.probe(np.random.default_rng(1), COUNT))
    encoded = encoder.encode(json.loads(json.dumps(probe)))
    assert len(probe) == COUNT and not encoded.faults
    assert len(set(encoded.exact.tolist())) > COUNT // 2
    assert probe != list(encoder.probe(np.random.default_rng(2), COUNT))


def matches_training_rows(kind: type[Encoder]) -> None:
    """Or says that it does not. Keys of rows and of encoded inputs are the same, whatever was fitted."""
    encoder, examples = fitted(kind), kind.examples(COUNT)
    layout = kind.row_layout(iter(examples))
    if layout is None:
        assert encoder.row_misfit({}) != ""
        return
    layout = json.loads(json.dumps(layout))
    assert encoder.row_misfit(layout) == ""
    keyed = kind.row_keys(layout, SEED)(examples)
    elsewhere = kind.fit(examples[: COUNT // 2], SEED)
    assert elsewhere is not None and not keyed.faults
    for one in (encoder, elsewhere):
        assert np.array_equal(one.row_lookup(layout, SEED)(one.encode(examples)), keyed.keys)


CHECKS: tuple[Callable[[type[Encoder]], None], ...] = (
    is_declared, has_the_shapes, does_not_depend_on_neighbours, depends_on_the_seed_alone, comes_back_from_arrays,
    faults_are_values, keeps_order_of_distances, accepts_its_own_probe, matches_training_rows,
)  # fmt: skip
