"""Every registered encoder keeps the contract of `models.encoders.base.Encoder`; a bad one is found out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pytest

from models.encoders import ENCODERS, by_kind
from models.encoders.base import Encoded, Encoder, EncodingFault, Told
from models.rows import U64
from tests.encoders import conformance
from tests.encoders.conformance import CHECKS
from tests.encoders.words import WordsEncoder

Check = Callable[[type[Encoder]], None]


@pytest.mark.parametrize("kind", [*ENCODERS, WordsEncoder], ids=lambda kind: kind.kind)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_encoder(check: Check, kind: type[Encoder]) -> None:
    check(kind)


def test_kinds_are_unique() -> None:
    assert len({encoder.kind for encoder in ENCODERS}) == len(ENCODERS) >= 2
    assert all(by_kind(encoder.kind) is encoder for encoder in ENCODERS)
    with pytest.raises(ValueError, match="expected one of embedding, tabular"):
        by_kind("typo")


class Batchwise(WordsEncoder):
    """Rows lean towards the mean of their batch."""

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        encoded = super().encode(inputs)
        return encoded._replace(values=(encoded.values + encoded.values.mean(axis=0)).astype(np.int16))


class Seedless(WordsEncoder):
    def __init__(self, common: Sequence[str], seed: bytes) -> None:
        super().__init__(common, bytes(32))


class Talkative(WordsEncoder):
    """Its fault quotes the value."""

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        encoded = super().encode(["ok" if text == conformance.SECRET else text for text in inputs])
        told = [EncodingFault(row, self.reads, "words", text) for row, text in enumerate(inputs)]
        faults = tuple(fault for fault in told if fault.got == conformance.SECRET)
        for fault in faults:
            encoded.values[fault.row] = 0
            encoded.exact[fault.row] = 0
        return encoded._replace(faults=faults)


class Forgetful(WordsEncoder):
    def header(self) -> dict[str, Any]:
        return {"common": self.common[:1]}


class Blind(WordsEncoder):
    """All inputs are at one place."""

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        encoded = super().encode(inputs)
        return encoded._replace(values=np.zeros_like(encoded.values))


class Choosy(WordsEncoder):
    """Its own probe is a fault."""

    def probe(self, rng: np.random.Generator, count: int) -> Iterator[Any]:
        yield from [""] * count


class Fickle(WordsEncoder):
    """Keys of training rows depend on what was fitted."""

    def row_lookup(self, layout: Mapping[str, Any], seed: bytes) -> Callable[[Encoded], Any]:
        return lambda encoded: encoded.exact ^ np.uint64(len(self.common))


class Anonymous(WordsEncoder):
    reads = "nothing"

    @classmethod
    def fit(
        cls, inputs: Sequence[Any], seed: bytes, clients: U64 | None = None, told: Mapping[str, Told] | None = None
    ) -> Self | None:
        return super().fit(list(inputs), seed)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Batchwise, conformance.does_not_depend_on_neighbours),
        (Seedless, conformance.depends_on_the_seed_alone),
        (Talkative, conformance.faults_are_values),
        (Forgetful, conformance.comes_back_from_arrays),
        (Blind, conformance.keeps_order_of_distances),
        (Choosy, conformance.accepts_its_own_probe),
        (Fickle, conformance.matches_training_rows),
        (Anonymous, conformance.is_declared),
    ],
    ids=lambda item: item.__name__,
)
def test_a_bad_encoder_is_found_out(kind: type[Encoder], check: Check) -> None:
    with pytest.raises(AssertionError):
        check(kind)
