"""The population written again for reading: one row at a time, in Python's own numbers."""

import math
from collections.abc import Sequence

import numpy as np


class SlowPopulation:
    """whitening : (d, d) by blocks of at most 64, lower triangular: white = whitening (x - centre)."""

    def __init__(self, centre: list[float], whitening: list[list[float]], cells: list[list[int]]) -> None:
        self.centre, self.whitening, self.cells = centre, whitening, cells

    def novelty(self, row: Sequence[int]) -> float:
        deviation = [value / 2048 - middle for value, middle in zip(row, self.centre, strict=True)]
        total = 0.0
        for weights in self.whitening:
            white = 0.0
            for weight, one in zip(weights, deviation, strict=True):
                white += weight * one
            total += white * white
        return float(np.float32(math.sqrt(total / len(row))))

    def cell(self, row: Sequence[int]) -> int:
        distances = [sum((a - b) ** 2 for a, b in zip(row, cell, strict=True)) for cell in self.cells]
        return 1 + distances.index(min(distances))


def random_features(row: Sequence[int], frequencies: list[list[float]], phases: list[float]) -> list[float]:
    angles = [
        phase + sum(w * value / 2048 for w, value in zip(wave, row, strict=True))
        for wave, phase in zip(frequencies, phases, strict=True)
    ]
    return [math.sqrt(2 / len(phases)) * math.cos(angle) for angle in angles]
