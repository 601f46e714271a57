"""What a report needs to know of everybody: how busy it was, how much each client sent, and a sample of inputs."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.frame import RowFrame
from models.rows import I16, I64, U8, U32, U64, Key, Rows

SLICE_MS = 5_000
SAMPLE_ROWS = 1_200


class KeptSpace(msgspec.Struct):
    """A space's part of a Survey; arrays as bytes. dim : of the sample's values."""

    model: str
    clients: bytes
    client_class: bytes
    rows: bytes
    slices: bytes
    busy: bytes
    exact: bytes
    values: bytes
    output: bytes
    dim: int


class InputSample(NamedTuple):
    """Distinct inputs, each as likely as any other: those with the smallest keyed hashes. exact : (k,), rising.

    values : (k, d) output : (k,) hash of the label.
    """

    exact: U64
    values: I16
    output: U32


class SpaceSurvey(NamedTuple):
    """clients, client_class, rows : (c,) keys, rising; class at first sight; number of rows. slices,
    busy : (m,) of SLICE_MS since 1970, and rows in each."""

    model: str
    clients: U64
    client_class: U8
    rows: I64
    slices: I64
    busy: I64
    sample: InputSample


class Survey:
    """Adds up over frames, and over partitions."""

    def __init__(self) -> None:
        self.spaces: dict[str, SpaceSurvey] = {}

    def add(self, frames: Sequence[RowFrame]) -> None:
        for name in {frame.space for frame in frames}:
            own = [frame for frame in frames if frame.space == name and frame.rows.count]
            if own:
                self._meet(name, _counted(own[0].model, [frame.rows for frame in own]))

    def join(self, other: "Survey") -> None:
        for name, space in other.spaces.items():
            self._meet(name, space)

    def _meet(self, name: str, space: SpaceSurvey) -> None:
        mine = self.spaces.get(name)
        if mine is not None:
            clients, rows, first = _summed(np.r_[mine.clients, space.clients], np.r_[mine.rows, space.rows])
            client_class = np.r_[mine.client_class, space.client_class][first]
            slices, busy, _ = _summed(np.r_[mine.slices, space.slices], np.r_[mine.busy, space.busy])
            sample = _smallest([mine.sample, space.sample])
            space = SpaceSurvey(space.model, clients, client_class, rows, slices, busy, sample)
        self.spaces[name] = space

    def dump(self) -> dict[str, KeptSpace]:
        return {name: _kept(space) for name, space in self.spaces.items()}

    @classmethod
    def load(cls, kept: dict[str, KeptSpace]) -> "Survey":
        survey = cls()
        survey.spaces = {name: _space(space) for name, space in kept.items()}
        return survey


def _kept(space: SpaceSurvey) -> KeptSpace:
    sample = space.sample
    return KeptSpace(
        space.model, space.clients.tobytes(), space.client_class.tobytes(), space.rows.tobytes(),
        space.slices.tobytes(),
        space.busy.tobytes(), sample.exact.tobytes(), sample.values.tobytes(), sample.output.tobytes(),
        sample.values.shape[1],
    )  # fmt: skip


def _space(kept: KeptSpace) -> SpaceSurvey:
    values = np.frombuffer(kept.values, np.int16).reshape(-1, kept.dim)
    sample = InputSample(np.frombuffer(kept.exact, np.uint64), values, np.frombuffer(kept.output, np.uint32))
    rows, slices, busy = (np.frombuffer(part, np.int64) for part in (kept.rows, kept.slices, kept.busy))
    clients, client_class = np.frombuffer(kept.clients, np.uint64), np.frombuffer(kept.client_class, np.uint8)
    return SpaceSurvey(kept.model, clients, client_class, rows, slices, busy, sample)


def _counted(model: str, parts: Sequence[Rows]) -> SpaceSurvey:
    client = np.concatenate([part.client for part in parts])
    clients, first, rows = np.unique(client, return_index=True, return_counts=True)
    client_class = np.concatenate([part.client_class for part in parts])[first]
    slices, busy = np.unique(np.concatenate([part.time_ms for part in parts]) // SLICE_MS, return_counts=True)
    exact = np.concatenate([part.exact for part in parts])
    limit = np.partition(exact, SAMPLE_ROWS)[SAMPLE_ROWS] if len(exact) > SAMPLE_ROWS else exact.max()
    picked = [
        InputSample(part.exact[low], part.values[low], part.output[low])
        for part in parts
        if len(low := np.flatnonzero(part.exact <= limit))
    ]
    return SpaceSurvey(
        model, clients, client_class, rows.astype(np.int64), slices, busy.astype(np.int64), _smallest(picked)
    )


def _smallest(samples: Sequence[InputSample]) -> InputSample:
    """The first rows of the SAMPLE_ROWS smallest hashes (a bottom-k sample, Cohen, Kaplan 2007)."""
    exact, chosen = np.unique(np.concatenate([sample.exact for sample in samples]), return_index=True)
    chosen = chosen[:SAMPLE_ROWS]
    values = np.concatenate([sample.values for sample in samples])[chosen]
    return InputSample(exact[:SAMPLE_ROWS], values, np.concatenate([sample.output for sample in samples])[chosen])


def _summed(keys: NDArray[Key], counts: I64) -> tuple[NDArray[Key], I64, I64]:
    """Each key once, rising; the sum of its counts; where it stands first."""
    distinct, first, place = np.unique(keys, return_index=True, return_inverse=True)
    return distinct, np.bincount(place, counts).astype(np.int64), first
