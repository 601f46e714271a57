"""The population written again for reading: one row at a time, in Python's own numbers."""

import math
from collections.abc import Sequence

import numpy as np


class SlowPopulation:
    """whitening : (d, d) by blocks of at most 64, lower triangular: white = whitening (x - centre).

    Sums are in 32 bits, four terms at a time.
    """

    def __init__(self, centre: list[float], whitening: list[list[float]], cells: list[list[int]]) -> None:
        self.centre, self.whitening, self.cells = centre, whitening, cells

    def novelty(self, row: Sequence[int]) -> float:
        deviation = [np.float32(value / 2048 - middle) for value, middle in zip(row, self.centre, strict=True)]
        total = 0.0
        for weights in self.whitening:
            white = sum_in_fours([np.float32(w) * one for w, one in zip(weights, deviation, strict=True)])
            total += float(white) * float(white)
        return float(np.float32(math.sqrt(total / len(row))))

    def cell(self, row: Sequence[int]) -> int:
        distances = [
            sum_in_fours([np.float32(a - b) ** 2 for a, b in zip(row, cell, strict=True)]) for cell in self.cells
        ]
        return 1 + distances.index(min(distances))


def sum_in_fours(terms: list[np.float32]) -> np.float32:
    total = np.float32(0)
    for start in range(0, len(terms), 4):
        a, b, c, d = (*terms[start : start + 4], *[np.float32(0)] * 3)[:4]
        total = total + (((a + b) + c) + d)
    return total


def random_features(row: Sequence[int], frequencies: list[list[float]], phases: list[float]) -> list[float]:
    angles = [
        phase + sum(w * value / 2048 for w, value in zip(wave, row, strict=True))
        for wave, phase in zip(frequencies, phases, strict=True)
    ]
    return [math.sqrt(2 / len(phases)) * math.cos(angle) for angle in angles]
