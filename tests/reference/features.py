"""The features of a variant, written again for reading: how does an input differ from its family?"""

import ctypes
import math
from dataclasses import dataclass, field
from typing import Any

STEP_EDGES2 = (1_678, 15_100, 94_372, 671_089, 4_194_304, 26_214_400)  # (edge * 2048) ** 2, rounded
ORIGIN, LAST, BEST, BEFORE = 0, 1, 2, 3

Row = dict[str, Any]
Tables = dict[str, Any]


def f32(number: float) -> float:
    return ctypes.c_float(number).value


def distance2(a: list[int], b: list[int]) -> int:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def differing(a: list[int], b: list[int]) -> list[int]:
    return [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]


def variant_bucket(variants: int) -> int:
    return sum(variants >= least for least in (1, 2, 3, 5, 9, 17, 33))


def size_bucket(count: int) -> int:
    return min(20, count.bit_length())


@dataclass
class Input:
    """An input that a client sent and that is still remembered."""

    values: list[int]
    fields: list[int]
    exact: int
    score: float = math.nan
    label: int = 0
    request_id: bytes = b""


@dataclass
class Family:
    """What grew around one input.

    references : origin, last, the last to bring a new extreme score, the one before the last. best_score, back_score :
    the extreme scores in the family's direction and against it.
    """

    references: list[Input]
    ids: list[bytes]  # origin, last
    wealth: list[int]
    parts: list[list[int]]
    seen: list[int]
    changed: list[int]
    first_ms: int
    last_ms: int
    touched_row: int
    score: float
    best_score: float
    back_score: float
    direction: float
    label: int
    label_a: int
    label_b: int = 0
    rows_a: int = 1
    rows_b: int = 0
    rows_other: int = 0
    mask: int = 0
    step2: int = 0
    variants: int = 0
    flips: int = 0
    known: list[int] = field(default_factory=list)  # hashes of all variants; the last 12 are known again


def describe(tables: Tables, family: Family, client_class: int, row: Row) -> tuple[list[int], int, int]:
    """(levels of the 8 features, mask of the changed fields, squared step)."""
    against = [
        (len(differing(row["fields"], ref.fields)), distance2(row["values"], ref.values), z)
        for z, ref in enumerate(family.references[:3])
    ]
    count, step2, z = min(against)
    f = len(row["fields"])
    if count > 3 or f == 0:
        step2 = min(d2 for _, d2, _ in against)
    changed = differing(row["fields"], family.references[z].fields)
    mask = 0
    for i in changed:
        mask |= 1 << (i % 64)
    few = f > 0 and count <= 3
    rarity = tables["rarity"][client_class]
    rarest = max(changed, key=lambda i: (rarity[i], -i), default=f)
    label, margin = row["output"], row["margin"]
    levels = [
        2 if 0 in (label, family.label) else int(label != family.label),
        edit_level(count, f, few and family.mask & mask != 0 and mask & ~family.mask == 0),
        collinear_level(family, row),
        2 if math.isnan(margin) else int(margin < tables["low_margin"][client_class]),
        record_level(family, row["score"]),
        sum(step2 >= edge for edge in STEP_EDGES2),
        equal_step_level(step2, family.step2),
        rarest if few else f,
    ]
    return levels, mask, step2


def edit_level(changed: int, fields: int, same: bool) -> int:
    if fields == 0:
        return 12
    if changed <= 3:
        kind = max(0, changed - 1)
    elif changed <= 6:
        kind = 3
    else:
        kind = 4 if changed <= fields / 2 else 5
    return 2 * kind + same


def collinear_level(family: Family, row: Row) -> int:
    last, before = family.references[LAST], family.references[BEFORE]
    if family.variants == 0 or (row["fields"] and len(differing(row["fields"], last.fields)) < 4):
        return 0
    step = [x - y for x, y in zip(row["values"], last.values, strict=True)]
    step_before = [x - y for x, y in zip(last.values, before.values, strict=True)]
    dot = sum(x * y for x, y in zip(step, step_before, strict=True))
    length2, before2 = sum(x * x for x in step), sum(x * x for x in step_before)
    if 0 in (length2, before2):
        return 1
    return 2 if float(dot) * float(dot) > 0.9409 * (float(length2) * float(before2)) else 1


def record_level(family: Family, score: float) -> int:
    if math.isnan(score) or math.isnan(family.best_score):
        return 2
    if beyond(score, family.best_score, family.direction):
        return 1
    return 3 if beyond(family.back_score, score, family.direction) else 0


def beyond(score: float, other: float, direction: float) -> bool:
    return f32(f32(score - other) * direction) > f32(1e-6)


def equal_step_level(step2: int, before2: int) -> int:
    if before2 <= 0:
        return 2
    step, before = math.sqrt(step2), math.sqrt(before2)
    return int(abs(step - before) <= max(0.002 * step, 1.0))
