"""Is this input a variant of something the client sent, and how does it differ?"""

import numpy as np

from models.kernels.jit import part
from models.kernels.layout import (
    BACKWARD,
    BEFORE_LAST,
    COLLINEAR,
    EDIT,
    EQUAL_STEP,
    FIELD,
    FLIP,
    FORWARD,
    JOINABLE,
    LAST,
    MARGIN,
    NO_EDIT,
    NO_RECORD,
    NO_SCORE,
    RECORD,
    REFERENCES,
    RING_MAX,
    STEP,
    VARIANTS_KNOWN,
    Nulls,
    RowBatch,
    Table,
)
from models.rows import I16, I64, U8, U16

NO_CANDIDATE = -1


@part
def distance2(values: I16, entry: int, x: I16) -> int:
    """Squared distance of a row to an entry, in value units; exact.

    values : (entries, lanes). Whole arrays and a position, not slices: making a view costs as much as comparing with
    it. Ending early cost more than it saved: 35 ns a candidate, against 3.
    """
    total = 0
    for i in range(len(x)):
        step = int(values[entry, i]) - int(x[i])
        total += step * step
    return total


@part
def agreement(entries: U16, entry: int, fields: U16, weights: U8) -> int:
    """Summed surprisal of the fields on which two rows agree (Fellegi, Sunter 1969), 1/16 nat."""
    total = np.int32(0)
    for i in range(len(fields)):
        total = np.int32(total + (np.int32(weights[i]) if entries[entry, i] == fields[i] else 0))
    return int(total)


@part
def is_repeat(table: Table, slot: int, exact: np.uint64) -> bool:
    client = table.clients[slot]
    for i in range(client.ring_size):
        if (client.ring_mask >> np.uint64(i)) & np.uint64(1) and table.ring[client.ring_start + i].exact == exact:
            return True
    for a in range(client.anchor_start, client.anchor_start + client.anchor_count):
        for known in range(REFERENCES + VARIANTS_KNOWN):
            if table.anchor_exact[a, known] == exact:
                return True
    return False


@part
def join(table: Table, nulls: Nulls, slot: int, batch: RowBatch, row: int) -> int:
    """The candidate that a row is a variant of, or -1: ring entry i as i, reference z of anchor a as
    RING_MAX + JOINABLE * a + z.

    By agreement first (.7 of the row's own surprisal and a least amount), else by distance within reach. Ties go to
    the earlier candidate.
    """
    if batch.fields.shape[1] > 0:
        alike = most_alike(table, nulls.agreement_min, slot, batch.fields[row], batch.surprisal[row])
        if alike >= 0:
            return alike
    return nearest(table, nulls.reach2, slot, batch.values[row])


@part
def most_alike(table: Table, least: int, slot: int, fields: U16, weights: U8) -> int:
    """The candidate that agrees most, or -1: `least` and seven tenths of the row's own surprisal at least."""
    client = table.clients[slot]
    own = 0
    for i in range(len(weights)):
        own += int(weights[i])
    alike, need = NO_CANDIDATE, int(max(least, (7 * own + 9) // 10))
    for i in range(client.ring_size):
        if (client.ring_mask >> np.uint64(i)) & np.uint64(1):
            agreed = agreement(table.ring_fields, client.ring_start + i, fields, weights)
            if agreed >= need:
                alike, need = i, agreed + 1
    for i in range(client.anchor_count):
        for z in range(JOINABLE):
            agreed = agreement(table.anchor_fields[client.anchor_start + i], z, fields, weights)
            if agreed >= need:
                alike, need = RING_MAX + JOINABLE * i + z, agreed + 1
    return alike


@part
def nearest(table: Table, reach2: int, slot: int, x: I16) -> int:
    """The nearest candidate within reach, or -1."""
    client = table.clients[slot]
    found, least2 = NO_CANDIDATE, reach2 + 1
    for i in range(client.ring_size):
        if (client.ring_mask >> np.uint64(i)) & np.uint64(1):
            d2 = distance2(table.ring_values, client.ring_start + i, x)
            if d2 < least2:
                found, least2 = i, d2
    for i in range(client.anchor_count):
        for z in range(JOINABLE):
            d2 = distance2(table.anchor_values[client.anchor_start + i], z, x)
            if d2 < least2:
                found, least2 = RING_MAX + JOINABLE * i + z, d2
    return found


@part
def closest_reference(table: Table, anchor: int, x: I16, fields: U16) -> tuple[int, int, int]:
    """(reference, changed fields, squared step): fewest changed fields, then shortest.

    The step of a row that changed more than three fields is the shortest to any reference.
    """
    best, best_count, best2, shortest2 = 0, 1 << 30, 1 << 60, 1 << 60
    for z in range(JOINABLE):
        count = 0
        for i in range(len(fields)):
            count += fields[i] != table.anchor_fields[anchor, z, i]
        d2 = 0
        for i in range(len(x)):
            gap = int(table.anchor_values[anchor, z, i]) - int(x[i])
            d2 += gap * gap
        shortest2 = min(shortest2, d2)
        if count < best_count or (count == best_count and d2 < best2):
            best, best_count, best2 = z, count, d2
    if best_count > 3 or len(fields) == 0:
        best2 = shortest2
    return best, best_count, best2


@part
def edit_level(changed: int, fields: int, same: bool) -> int:
    """Changed fields (1, 2, 3, 4-6, up to half, more) times "the same fields as last time"; NO_EDIT without fields."""
    if fields == 0:
        return NO_EDIT
    if changed <= 3:
        kind = max(0, changed - 1)
    elif changed <= 6:
        kind = 3
    elif 2 * changed <= fields:
        kind = 4
    else:
        kind = 5
    return 2 * kind + (1 if same else 0)


@part
def collinear_level(table: Table, anchor: int, x: I16, fields: U16) -> int:
    """1 or 2 for a step across or along the last one (|cos| > .97); 0 for a first step or fewer than 4 fields."""
    if table.anchors[anchor].variants < 1:
        return 0
    if len(fields) > 0:
        count = 0
        for i in range(len(fields)):
            count += fields[i] != table.anchor_fields[anchor, LAST, i]
        if count < 4:
            return 0
    dot, step2, before2 = np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(x)):
        last = np.int64(table.anchor_values[anchor, LAST, i])
        step = np.int64(x[i]) - last
        before = last - np.int64(table.anchor_values[anchor, BEFORE_LAST, i])
        dot += step * before
        step2 += step * step
        before2 += before * before
    if step2 == 0 or before2 == 0:
        return 1
    squared = np.float64(dot) * np.float64(dot)
    return 2 if squared > 0.9409 * (np.float64(step2) * np.float64(before2)) else 1


@part
def step_level(step2: int) -> int:
    """Step length in bins with edges .02 .06 .15 .4 1 2.5 standard units (squares of edges x 2048)."""
    if step2 < 1_678:
        return 0
    if step2 < 15_100:
        return 1
    if step2 < 94_372:
        return 2
    if step2 < 671_089:
        return 3
    if step2 < 4_194_304:
        return 4
    if step2 < 26_214_400:
        return 5
    return 6


@part
def equal_step_level(step2: int, before2: int) -> int:
    """1 if two successive steps have the same length, within .2 % or one value unit; 2 for a first step."""
    if before2 <= 0:
        return 2
    step, before = np.sqrt(np.float64(step2)), np.sqrt(np.float64(before2))
    return 1 if abs(step - before) <= max(0.002 * step, 1.0) else 0


@part
def record_level(score: np.float32, best: np.float32, back: np.float32, direction: np.float32) -> int:
    """A score beyond all others of the family, towards the threshold (and past it) or away from it.

    Evasion climbs the first way, inversion of a class the second (Fredrikson, Jha, Ristenpart 2015).
    """
    if np.isnan(score) or np.isnan(best):
        return NO_SCORE
    if (score - best) * direction > np.float32(1e-6):
        return FORWARD
    return BACKWARD if (back - score) * direction > np.float32(1e-6) else NO_RECORD


@part
def describe(
    table: Table, nulls: Nulls, anchor: int, batch: RowBatch, row: int, levels: I64, client_class: int
) -> tuple[np.uint64, int]:
    """Fill the feature levels of a variant; return (mask of changed fields, squared step)."""
    x, fields = batch.values[row], batch.fields[row]
    f = nulls.rarity.shape[1]
    family = table.anchors[anchor]
    reference, changed, step2 = closest_reference(table, anchor, x, fields)
    mask, rarest, rarity = np.uint64(0), f, -1
    for i in range(f):
        if fields[i] != table.anchor_fields[anchor, reference, i]:
            mask |= np.uint64(1) << np.uint64(i & 63)
            if nulls.rarity[client_class, i] > rarity:
                rarest, rarity = i, nulls.rarity[client_class, i]
    few = f > 0 and changed <= 3
    same = few and (family.mask & mask) != 0 and (mask & ~family.mask) == 0
    label = batch.output[row]
    levels[FLIP] = 2 if label == 0 or family.label == 0 else (1 if label != family.label else 0)
    levels[EDIT] = edit_level(changed, f, same)
    levels[COLLINEAR] = collinear_level(table, anchor, x, fields)
    margin = batch.margin[row]
    levels[MARGIN] = 2 if np.isnan(margin) else (1 if margin < nulls.low_margin[client_class] else 0)
    score = batch.score[row]
    levels[RECORD] = record_level(score, family.best_score, family.back_score, family.direction)
    levels[STEP] = step_level(step2)
    levels[EQUAL_STEP] = equal_step_level(step2, family.step2)
    levels[FIELD] = rarest if few else f
    return mask, step2
