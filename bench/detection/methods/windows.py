"""Tests of a client's stream for a change: MMD against ordinary inputs; Page-Hinkley, ADWIN and KSWIN on distances.

The stream of the last three is the logarithm of each distinct input's distance to the nearest of the client's earlier
ones: it falls when somebody begins to edit.
"""

from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN, KSWIN
from scipy.spatial.distance import pdist

from bench.detection.methods.base import Method, View, indicators
from bench.detection.methods.neighbours import BUFFER, nearest
from models.kernels.jit import making_kernel
from models.rows import F64, I64

FEATURES = 128
"""Random features of the kernel; Rahimi and Recht 2007, algorithm 1."""
MMD_ROWS_MIN = 10
CHUNK = 65_536
FLOOR = 1e-3
"""Distances below count as this, in standard units."""
PH_DELTA, PH_ALPHA, PH_ROWS_MIN, PH_THRESHOLD = 0.005, 1 - 1e-4, 10, 50.0
KSWIN_WINDOW, KSWIN_STAT = 40, 15


def mmd(window: int, at: View, reference: View) -> F64:
    """n times the unbiased squared MMD between the client's last n <= window distinct inputs and ordinary ones.

    Times n, because that is the scale of the statistic's null: partial windows can then share one threshold. The paper
    judges full windows of 1,500 rows of all traffic; most attackers here never send so many.
    """
    ordinary = indicators(reference)
    rng = np.random.default_rng(0)
    width = float(np.median(pdist(ordinary[:1_000])))
    weights = rng.standard_normal((ordinary.shape[1], FEATURES)) / width
    phases = rng.uniform(0, 2 * np.pi, FEATURES)
    centre = np.cos(ordinary @ weights + phases).mean(axis=0)
    found = np.zeros(len(at.x))
    wide, ring = indicators(at), np.zeros((window, FEATURES))
    for clients in _chunks(at.log.starts):
        starts = at.log.starts[clients.start : clients.stop + 1]
        rows = slice(starts[0], starts[-1])
        features = np.cos(wide[rows] @ weights + phases)
        _mmd(features, starts - starts[0], at.repeat[rows], centre, ring, found[rows])
    return found


def page_hinkley(at: View, reference: View) -> F64:
    """How far the cumulative sum lies below its maximum; river's formula."""
    found = np.zeros(len(at.x))
    _page_hinkley(np.log(np.maximum(nearest(at), FLOOR)), at.log.starts, found)
    return found


def adwin(at: View, reference: View) -> F64:
    """Changes found so far in the client's stream."""
    stream, found = np.log(np.maximum(nearest(at), FLOOR)), np.zeros(len(at.x))
    for start, end in pairwise(at.log.starts.tolist()):
        detector, alarms = ADWIN(delta=0.002, grace_period=5, clock=1), 0
        for row in range(start, end):
            if not np.isnan(stream[row]):
                detector.update(stream[row])
                alarms += detector.drift_detected
            found[row] = alarms
    return found


def kswin(at: View, reference: View) -> F64:
    """Minus the logarithm of the last test's p-value."""
    stream, found = np.log(np.maximum(nearest(at), FLOOR)), np.zeros(len(at.x))
    for start, end in pairwise(at.log.starts.tolist()):
        if end - start < KSWIN_WINDOW:
            continue
        detector, tested = KSWIN(alpha=0.005, window_size=KSWIN_WINDOW, stat_size=KSWIN_STAT, seed=0), 0.0
        for row in range(start, end):
            if not np.isnan(stream[row]):
                detector.update(stream[row])
                if detector.p_value > 0:  # 0 = not tested yet, or just begun again after an alarm
                    tested = -np.log(detector.p_value)
            found[row] = tested
    return found


def _chunks(starts: I64) -> list[slice]:
    """Runs of whole clients of about CHUNK rows."""
    cuts = np.searchsorted(starts, np.arange(CHUNK, starts[-1], CHUNK))
    edges = np.unique(np.r_[0, cuts, len(starts) - 1])
    return [slice(first, last) for first, last in pairwise(edges)]


@making_kernel
def _mmd(features: F64, starts: I64, skip: NDArray[np.bool_], centre: F64, ring: F64, out: F64) -> None:
    """features : cos(w x + b); k(x, y) is twice the mean of their products, k(x, x) is taken as 1."""
    window, wide = ring.shape
    scale = 2.0 / wide
    for c in range(len(starts) - 1):
        total = np.zeros(wide)
        seen = 0
        for i in range(starts[c], starts[c + 1]):
            if skip[i]:
                if i > starts[c]:
                    out[i] = out[i - 1]
                continue
            place = seen % window
            if seen >= window:
                total -= ring[place]
            ring[place] = features[i]
            total += features[i]
            seen += 1
            n = min(seen, window)
            if n >= MMD_ROWS_MIN:
                within = (scale * np.sum(total * total) - n) / (n * (n - 1.0))
                between = scale * np.sum(total * centre) / n
                out[i] = n * (within - 2.0 * between + scale * np.sum(centre * centre))


@making_kernel
def _page_hinkley(stream: F64, starts: I64, out: F64) -> None:
    for c in range(len(starts) - 1):
        n, mean, total, most, score = 0, 0.0, 0.0, -1.0, 0.0
        for i in range(starts[c], starts[c + 1]):
            if not np.isnan(stream[i]):
                n += 1
                mean += (stream[i] - mean) / n
                total = PH_ALPHA * total + stream[i] - mean + PH_DELTA
                most = max(most, total)
                if n >= PH_ROWS_MIN:
                    score = most - total
            out[i] = score


def _window_bytes(window: int, rows: I64, fields: int) -> F64:
    return 8.0 * FEATURES * (1 + np.minimum(rows, window))


def _nearest_bytes(own: float, rows: I64, fields: int) -> F64:
    """The buffer of earlier inputs that gives the stream, and what the test itself keeps."""
    kept: F64 = own + 4.0 * fields * np.minimum(rows, BUFFER)
    return kept


METHODS = (
    *(
        Method(
            f"MMD {window}",
            "arXiv 2606.05725, BATCH_SIZE of its repository",
            f"last {window} distinct inputs; RBF, median width",
            partial(mmd, window),
            partial(_window_bytes, window),
        )
        for window in (100, 500, 1500)
    ),
    Method(
        "Page-Hinkley",
        "Page 1954; river.drift.PageHinkley",
        f"delta {PH_DELTA}, alpha {PH_ALPHA}, from row {PH_ROWS_MIN}; downwards",
        page_hinkley,
        partial(_nearest_bytes, 40.0),
        {"river's 50": PH_THRESHOLD},
    ),
    Method(
        "ADWIN",
        "Bifet, Gavalda 2007; river.drift.ADWIN",
        "delta .002, tested at each row from row 5; count of changes",
        adwin,
        partial(_nearest_bytes, 4_000.0),
        {"one change": 0.5},
        slow=True,
    ),
    Method(
        "KSWIN",
        "Raab et al. 2020; river.drift.KSWIN",
        f"window {KSWIN_WINDOW}, recent {KSWIN_STAT}; -log p",
        kswin,
        partial(_nearest_bytes, 8.0 * KSWIN_WINDOW),
        {"alpha .005": -float(np.log(0.005))},
        slow=True,
    ),
)
