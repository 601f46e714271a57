"""The fold written again for reading: dicts, lists and Python's own integers, one row at a time.

Nothing is imported from what it tests; tables of ratios and thresholds come in as nested lists. docs/engine.md is the
same in words. Where the kernels hold an array of pages, a client here holds a list of families; where they count bytes,
so does this.
"""

import math
from collections import Counter
from dataclasses import dataclass

from tests.reference.client import (
    DAY_MS,
    EXPLAIN,
    EXPLAIN_OUTCOME,
    MEMBERSHIP_OUTCOME,
    MINUTE_MS,
    NEVER,
    UNJUDGED,
    Averages,
    Client,
    outcomes,
    reading_outcomes,
)
from tests.reference.features import (
    BEFORE,
    BEST,
    LAST,
    ORIGIN,
    Family,
    Input,
    Row,
    Tables,
    describe,
    differing,
    distance2,
    f32,
    size_bucket,
    variant_bucket,
)

CEILING, COUNT_CEILING = 2_000_000, 2_000_000_000
HALF_LIFE_MS, FORGET_MS = 7 * DAY_MS, 30 * DAY_MS
LN2_MICRO = 693_147
RING, FAMILIES, RECEIPTS = 64, 16, 256


def log_one_plus(evidence: int) -> int:
    """log(1 + M) for log M, both in milli-nats."""
    size = abs(evidence)
    return max(evidence, 0) + (round(1000 * math.log1p(math.exp(-size / 1000))) if size < 8_000 else 0)


def bet(evidence: int, ratio: int) -> int:
    return min(log_one_plus(evidence) + ratio, CEILING)


@dataclass
class Verdict:
    """What one applied row came to. level : the level it calls for, 0 if it calls for nothing. drift : the distance of
    the client's averages, -1 if there is none; drifted : it is to be told."""

    level: int
    lead: int
    family: int
    statistic: int
    evidence: list[int]
    statistic_kept: int
    drift: int = -1
    drifted: bool = False


class SlowFold:
    """All clients of one partition and space.

    counts : ("family", class, bucket, feature, level), ("field", class, field) or ("client", class, process, bucket,
    level) -> rows, as calibration counts them. met : how often something worth meeting was met, for guards of tests.
    tables : the columns of the fold's tables by name, nested lists. costs : bytes of a client, a ring entry, a family,
    averages, a receipt. moved : block -> how far the population has moved, 64ths of a value unit. muted : block -> bits
    of `odd`, of `offgrid` and of `flags` that are news about the population.
    """

    def __init__(self, tables: Tables, blocks: int, capacity: int, costs: list[int]) -> None:
        self.tables, self.blocks, self.capacity, self.costs = tables, blocks, capacity, costs
        self.singles = len(tables["field"][0][0])
        self.joint: int = tables["joint"]
        self.clients: dict[int, Client] = {}
        self.moved: dict[int, list[int]] = {}
        self.muted: dict[int, tuple[int, int, int]] = {}
        self.marks: dict[tuple[int, int], tuple[int, int]] = {}
        self.skipped = self.redelivered = self.evicted = self.back = 0
        self.counts: Counter[tuple[str | int, ...]] = Counter()
        self.met: Counter[str] = Counter()

    # ---- one row

    def apply(self, row: Row, closed: frozenset[int] = frozenset()) -> Verdict | None:
        """None for a row that its block has applied already, or that the client has delivered before."""
        block = row["client"] % self.blocks
        position = (row["offset"], row["index"])
        if block in closed or position <= self.marks.get((block, row["source"]), (-1, -1)):
            self.skipped += 1
            return None
        self.marks[block, row["source"]] = position
        row = self.without_news(row, block)
        if row["client"] not in self.clients:
            self.make_room(block, self.costs[0], keep=None)
            self.clients[row["client"]] = Client(row["client"])
        client = self.clients[row["client"]]
        client_class = min(2, row["client_class"])
        if self.is_delivered_again(client, row):
            self.redelivered += 1
            return None
        gap_before = client.gap_ms
        self.tick(client, row)
        self.receive(client, row)
        self.bet_on_reading(client, client_class, row)
        drift = -1
        if row["flags"] & UNJUDGED:
            self.met["rows without an input"] += 1
        elif self.is_repeat(client, row["exact"]):
            client.repeats += 1
        else:
            self.bet_on_client(client, client_class, row, gap_before)
            drift = self.average(client, row)
            self.place(client, client_class, row)
        verdict = self.weigh(client, client_class)
        verdict.drift, verdict.drifted = drift, self.is_told(client, client_class, drift)
        before, client.statistic = client.statistic, max(NEVER, verdict.statistic)
        verdict.statistic_kept = client.statistic
        if client.statistic > before or verdict.evidence[verdict.lead] >= CEILING:
            verdict.level = self.called_for(client, client_class, row)
        return verdict

    def is_delivered_again(self, client: Client, row: Row) -> bool:
        """By time and input; and what is no later than a receipt that was given up, unless the record of the client's
        last row goes on at the client's present time. Time 0 is none."""
        time_ms = row["time_ms"]
        if client.rows == 0 or time_ms > client.clock_ms:
            return False
        if (time_ms, row["exact"] % 2**32) in client.receipts:
            self.met["known by a receipt"] += 1
            return True
        if client.forgotten_ms is None or time_ms > client.forgotten_ms or time_ms == 0:
            self.met["late and new"] += time_ms < client.clock_ms
            return False
        goes_on = time_ms == client.clock_ms and (row["source"], row["offset"]) == client.record
        self.met["more than a page in one record"] += goes_on
        self.met["known by no receipt"] += not goes_on
        return not goes_on

    def receive(self, client: Client, row: Row) -> None:
        client.record = row["source"], row["offset"]
        if len(client.receipts) == client.receipt_room < RECEIPTS:
            size = {0: 4, 4: 16, 16: 64, 64: RECEIPTS}[client.receipt_room]
            self.make_room(client.key % self.blocks, self.costs[4] * (size - client.receipt_room), client)
            client.receipt_room = size
        receipt = row["time_ms"], row["exact"] % 2**32
        if len(client.receipts) == RECEIPTS and receipt[0] <= client.receipts[0][0]:
            self.forget(client, receipt[0])
            return
        client.receipts.append(receipt)
        client.receipts.sort(key=lambda kept: kept[0])
        if len(client.receipts) > RECEIPTS:
            self.forget(client, client.receipts.pop(0)[0])

    def forget(self, client: Client, time_ms: int) -> None:
        self.met["receipts given up"] += 1
        client.forgotten_ms = time_ms if client.forgotten_ms is None else max(client.forgotten_ms, time_ms)

    def bet_on_reading(self, client: Client, client_class: int, row: Row) -> None:
        bucket = variant_bucket(client.rows - 1)
        levels = reading_outcomes(row)
        client.unreadable_rows += levels[0]
        client.unjudged_rows += levels[1]
        for p, level in enumerate(levels, len(client.bets) - len(levels)):
            self.count("client", client_class, p, bucket, level)
            client.bets[p] = bet(client.bets[p], self.tables["client"][client_class][p][bucket][level])

    def without_news(self, row: Row, block: int) -> Row:
        odd, offgrid, flags = self.muted.get(block, (0, 0, 0))
        row = row | {"offgrid": row["offgrid"] & ~offgrid, "quiet": row["flags"] & flags}
        self.met["flags that are news"] += row["quiet"] & 112 != 0
        if row["odd"] & odd:
            self.met["odd values that are news"] += 1
            worth = [0 if row["odd"] & odd & 1 << min(i, 31) else each for i, each in enumerate(row["surprisal"])]
            row |= {"novelty": math.nan, "cell": 0, "surprisal": worth}
        return row

    def mute(self, block: int, odd: int, offgrid: int, flags: int) -> None:
        """News, and what it fed is forgotten."""
        before = self.muted.get(block, (0, 0, 0))
        self.muted[block] = (before[0] | odd, before[1] | offgrid, before[2] | flags)
        for client in self.clients.values():
            if client.key % self.blocks == block:
                if odd & ~before[0]:
                    client.bets[2] = client.bets[3] = client.bets[4] = NEVER
                for p, flag in ((8, 16), (8, 128), (9, 32), (10, 64)):
                    if flags & ~before[2] & flag:
                        client.bets[p] = NEVER
                if offgrid & ~before[1]:
                    client.bets[1] = NEVER
                    client.offgrid_rows = client.offgrid_fields = 0

    def tick(self, client: Client, row: Row) -> None:
        time_ms = row["time_ms"]
        first = client.rows == 0
        if first:
            client.clock_ms = client.decay_from_ms = time_ms
            client.day, client.minute = time_ms // DAY_MS, time_ms // MINUTE_MS
        before = client.clock_ms
        self.back += 0 < time_ms < before - MINUTE_MS
        client.clock_ms = max(before, time_ms)
        client.gap_ms = -1 if first else client.clock_ms - before
        self.fade(client)
        self.turn(client)
        client.rows += 1
        client.rows_today += 1
        client.rows_minute += 1
        client.tokens_today += row["tokens_in"] + row["tokens_out"]

    def fade(self, client: Client) -> None:
        faded = (client.clock_ms - client.decay_from_ms) * LN2_MICRO // (1000 * HALF_LIFE_MS)
        if faded <= 0:
            return
        client.decay_from_ms += faded * 1000 * HALF_LIFE_MS // LN2_MICRO
        for p, evidence in enumerate(client.bets):
            client.bets[p] = max(NEVER, evidence - faded)
            self.met[f"bet {p} faded"] += client.bets[p] == evidence - faded
            self.met[f"bet {p} faded to nothing"] += client.bets[p] == NEVER < evidence
        for family in client.families:
            family.wealth = [max(NEVER, wealth - faded) for wealth in family.wealth]
        client.families = [f for f in client.families if f.last_ms >= client.clock_ms - FORGET_MS]
        if not client.families:
            client.family_room = 0

    def turn(self, client: Client) -> None:
        """A new day, a new minute."""
        day, minute = client.clock_ms // DAY_MS, client.clock_ms // MINUTE_MS
        if day != client.day:
            self.met["days turned"] += 1
            self.met["days turned on the stroke"] += client.clock_ms % DAY_MS == 0
            client.day = day
            client.rows_today = client.distinct_today = client.explained_today = client.tokens_today = 0
        if minute != client.minute:
            self.met["minutes turned"] += 1
            self.met["minutes turned on the stroke"] += client.clock_ms % MINUTE_MS == 0
            client.minute, client.rows_minute = minute, 0

    @staticmethod
    def is_repeat(client: Client, exact: int) -> bool:
        remembered = [entry.exact for entry in client.ring.values()]
        for family in client.families:
            remembered += [family.references[z].exact for z in (ORIGIN, LAST, BEST)] + family.known[-12:]
        return exact in remembered

    def bet_on_client(self, client: Client, client_class: int, row: Row, gap_before: int) -> None:
        bucket = variant_bucket(client.distinct)
        client.distinct += 1
        client.distinct_today += 1
        client.offgrid_rows += row["offgrid"] != 0
        client.offgrid_fields |= row["offgrid"]
        client.explained_today += row["flags"] & EXPLAIN != 0
        levels = outcomes(self.tables, client, client_class, row, gap_before, self.met)
        client.low_margin_rows += levels[0] == 1
        client.member_rows += levels[MEMBERSHIP_OUTCOME] == 1
        client.explained_rows += levels[EXPLAIN_OUTCOME] == 1
        for p, level in enumerate(levels):
            if level is not None:
                self.count("client", client_class, p, bucket, level)
                client.bets[p] = bet(client.bets[p], self.tables["client"][client_class][p][bucket][level])

    def average(self, client: Client, row: Row) -> int:
        """Mean squared difference of the two averages, from the 47th distinct row on; -1 before."""
        if client.distinct < 16:
            return -1
        if client.averages is None:
            self.make_room(client.key % self.blocks, self.costs[3], client)
            client.averages = Averages(client.clock_ms, [0] * len(row["values"]), [0] * len(row["values"]))
        kept = client.averages
        kept.rows += 1
        away = self.moved.get(client.key % self.blocks, [0] * len(row["values"]))
        inputs = [64 * value - by for value, by in zip(row["values"], away, strict=True)]
        doubled = sum(kept.rows >= 2**k for k in range(1, 7))  # 2 ** doubled of the rows so far, at most 64
        kept.fast = [old + (x - old) // 2 ** min(3, doubled) for x, old in zip(inputs, kept.fast, strict=True)]
        kept.slow = [old + (x - old) // 2**doubled for x, old in zip(inputs, kept.slow, strict=True)]
        self.met["averages of a moved population"] += any(away)
        return distance2(kept.fast, kept.slow) // len(inputs) if kept.rows >= 32 else -1

    def is_told(self, client: Client, client_class: int, drift: int) -> bool:
        """Once a day of the client."""
        kept = client.averages
        if kept is None or drift < 0 or drift < self.tables["drift"][client_class]:
            return False
        self.met["drift not told again"] += kept.told_day == client.day
        if kept.told_day == client.day:
            return False
        self.met["drift told on another day"] += kept.told_day is not None
        self.met["drift told"] += 1
        kept.told_day = client.day
        return True

    def place(self, client: Client, client_class: int, row: Row) -> None:
        """Into the family of what it is a variant of, or into the ring."""
        like = self.join(client, row)
        if like is None:
            self.remember(client, row)
        elif like[0] == "ring":
            self.bet_on_family(client, self.promote(client, like[1]), client_class, row)
        else:
            self.bet_on_family(client, client.families[like[1]], client_class, row)

    # ---- the join

    def join(self, client: Client, row: Row) -> tuple[str, int] | None:
        """The first of the most alike, if alike enough; else the first of the nearest, if near enough."""
        candidates: list[tuple[tuple[str, int], Input]] = [
            (("ring", place), client.ring[place]) for place in sorted(client.ring)
        ]
        for i, family in enumerate(client.families):
            candidates += [(("family", i), family.references[z]) for z in (ORIGIN, LAST, BEST)]
        if not candidates:
            return None
        if row["fields"]:
            agreed = [self.agreement(row, other) for _, other in candidates]
            most = max(agreed)
            if most >= self.tables["agreement_min"] and 10 * most >= 7 * sum(row["surprisal"]):
                return candidates[agreed.index(most)][0]
        distances = [distance2(row["values"], other.values) for _, other in candidates]
        nearest = min(distances)
        return candidates[distances.index(nearest)][0] if nearest <= self.tables["reach2"] else None

    @staticmethod
    def agreement(row: Row, other: Input) -> int:
        changed = set(differing(row["fields"], other.fields))
        return sum(worth for i, worth in enumerate(row["surprisal"]) if i not in changed)

    # ---- ring and families

    def remember(self, client: Client, row: Row) -> None:
        if client.ring_next >= client.ring_size < RING:
            size = {0: 1, 1: 4, 4: 12, 12: 32, 32: RING}[client.ring_size]
            self.make_room(client.key % self.blocks, self.costs[1] * (size - client.ring_size), client)
            client.ring_size = size
        place = client.ring_next % RING
        client.ring_next = place + 1
        self.met["ring inputs overwritten"] += place in client.ring
        client.ring[place] = self.input_of(row)

    @staticmethod
    def input_of(row: Row) -> Input:
        return Input(
            row["values"], row["fields"], row["exact"], row["score"], row["output"], row["request_id"][:40]
        )  # fmt: skip

    def promote(self, client: Client, place: int) -> Family:
        """A ring entry founds a family and leaves the ring."""
        if len(client.families) == client.family_room < FAMILIES:
            size = 2 if client.family_room == 0 else FAMILIES
            self.make_room(client.key % self.blocks, self.costs[2] * (size - client.family_room), client)
            client.family_room = size
        origin = client.ring.pop(place)
        family = Family(
            references=[origin] * 4,
            ids=[origin.request_id] * 2,
            wealth=[NEVER] * self.singles,
            parts=[[0] * 8 for _ in range(self.joint)],
            seen=[1 << (value & 63) for value in origin.fields],
            changed=[0] * len(origin.fields),
            first_ms=client.clock_ms,
            last_ms=client.clock_ms,
            touched_row=client.rows,
            score=origin.score,
            best_score=origin.score,
            back_score=origin.score,
            direction=-1.0 if origin.score > f32(self.tables["decision_threshold"]) else 1.0,
            label=origin.label,
            label_a=origin.label,
        )
        if len(client.families) < FAMILIES:
            client.families.append(family)
        else:
            worth = [max(f.wealth) - 20 * (client.rows - f.touched_row) for f in client.families]
            client.families[worth.index(min(worth))] = family
        return family

    def bet_on_family(self, client: Client, family: Family, client_class: int, row: Row) -> None:
        client.variants += 1
        levels, mask, step2 = describe(self.tables, family, client_class, row)
        bucket = variant_bucket(family.variants)
        for j in range(7):
            self.count("family", client_class, bucket, j, levels[j])
        self.count("field", client_class, levels[7])
        for p in range(self.singles):
            ratios = [self.tables["family"][client_class][bucket][j][levels[j]][p] for j in range(7)]
            ratios.append(self.tables["field"][client_class][levels[7]][p])
            if p < self.joint:
                past = [0] * 8 if family.wealth[p] < 0 else family.parts[p]
                family.parts[p] = [a + b for a, b in zip(past, ratios, strict=True)]
            family.wealth[p] = bet(family.wealth[p], sum(ratios))
        self.extend(client, family, row, levels, mask, step2)

    def count(self, *where: str | int) -> None:
        self.counts[where] += 1

    def extend(self, client: Client, family: Family, row: Row, levels: list[int], mask: int, step2: int) -> None:
        latest = self.input_of(row)
        family.known.append(row["exact"])
        family.variants += 1
        family.touched_row, family.last_ms = client.rows, client.clock_ms
        family.mask, family.step2 = mask, step2
        family.flips += levels[0] == 1
        self.count_label(family, row["output"])
        family.references[BEFORE] = family.references[LAST]
        family.references[LAST] = latest
        if levels[4] == 1:
            family.best_score = row["score"]
        if levels[4] == 3:
            family.back_score = row["score"]
        if levels[4] in (1, 3):
            family.references[BEST] = latest
        family.score = row["score"]
        family.ids[1] = latest.request_id
        family.seen = [old | 1 << (value & 63) for old, value in zip(family.seen, row["fields"], strict=True)]
        for i in differing(row["fields"], family.references[ORIGIN].fields):
            family.changed[i] = min(65_535, family.changed[i] + 1)

    @staticmethod
    def count_label(family: Family, label: int) -> None:
        if label != 0:
            family.label = label
        if label == family.label_a:
            family.rows_a += 1
        elif family.label_b in (0, label):
            family.label_b = label
            family.rows_b += 1
        else:
            family.rows_other += 1

    # ---- the statistic and the levels

    def weigh(self, client: Client, client_class: int) -> Verdict:
        evidence, leaders = [], []
        for p in range(self.singles):
            wealth = [family.wealth[p] for family in client.families]
            most = max(wealth, default=NEVER)
            evidence.append(most)
            leaders.append(wealth.index(most) if most > NEVER else -1)
        for p in range(self.joint):
            above = [family.wealth[p] - 500 for family in client.families if family.wealth[p] > 500]
            evidence.append(min(CEILING, sum(above)))
            leaders.append(leaders[p] if above else -1)
        unique = 1000 * (client.distinct_today + 7 * client.explained_today)
        counts = [unique, 1000 * client.rows_minute, client.tokens_today]
        evidence += client.bets + [min(COUNT_CEILING, count) for count in counts]
        leaders += [-1] * (len(client.bets) + len(counts))
        self.met["tokens at the ceiling"] += client.tokens_today >= COUNT_CEILING
        sizes = [min(COUNT_CEILING, 1000 * family.variants) for family in client.families]
        largest = max(sizes, default=0)
        evidence.append(largest)
        leaders.append(sizes.index(largest) if largest > 0 else -1)
        tail, scale = self.tables["tail"][client_class], self.tables["tail_scale"][client_class]
        excess = {p: (evidence[p] - tail[p]) * 1000 // scale[p] for p in range(len(evidence)) if scale[p] > 0}
        growth = self.tables["growth"][client_class][size_bucket(client.rows_today)]
        excess = {p: value if p >= len(evidence) - 4 else value - growth for p, value in excess.items()}
        lead = max(excess, key=lambda p: (excess[p], -p), default=0)
        statistic = excess.get(lead, -(1 << 60))
        return Verdict(0, lead, leaders[lead], statistic, evidence, 0)

    def called_for(self, client: Client, client_class: int, row: Row) -> int:
        """The level that this row raises the client to, 0 for none."""
        now_ms = max(client.clock_ms, row["append_ms"])
        self.met["the broker's time ends a decision"] += client.clock_ms < client.expires_ms <= now_ms
        if now_ms < client.quiet_until_ms:
            return 0
        upwards = (client.key >> 17) % 501
        thresholds = self.tables["thresholds"][client_class]
        reached = max([0] + [level for level in (1, 2, 3, 4) if client.statistic >= thresholds[level] + upwards])
        in_force = client.level if now_ms < client.expires_ms else 0
        return reached if reached > in_force else 0

    def forget_evidence(self, client: Client) -> None:
        """A person judged the client benign."""
        self.met["evidence forgotten"] += max(client.bets) > 0
        client.bets, client.statistic = [NEVER] * len(client.bets), NEVER
        client.offgrid_rows = client.offgrid_fields = client.low_margin_rows = 0
        client.member_rows = client.explained_rows = client.unreadable_rows = client.unjudged_rows = 0
        for family in client.families:
            family.wealth = [NEVER] * self.singles
            family.parts = [[0] * 8 for _ in range(self.joint)]

    # ---- room

    def bytes_of(self, client: Client) -> int:
        pages = self.costs[1] * client.ring_size + self.costs[2] * client.family_room
        receipts = self.costs[4] * client.receipt_room
        return self.costs[0] + pages + self.costs[3] * (client.averages is not None) + receipts

    def block_bytes(self, block: int) -> int:
        return sum(self.bytes_of(client) for client in self.clients.values() if client.key % self.blocks == block)

    def make_room(self, block: int, need: int, keep: Client | None) -> None:
        if self.block_bytes(block) + need <= self.capacity:
            return
        while self.block_bytes(block) + need > self.capacity - self.capacity // 64:
            others = [c for c in self.clients.values() if c.key % self.blocks == block and c is not keep]
            if not others:
                return
            leaving = min(others, key=lambda c: (c.statistic, c.clock_ms, c.key))
            del self.clients[leaving.key]
            self.met["averages given back"] += leaving.averages is not None
            self.evicted += 1
