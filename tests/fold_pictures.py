"""Readers that bring kernel state and twin state to one shape."""

from typing import Any

import numpy as np

from models.client_table import ClientTable
from models.kernels.fold.slots import NOTHING_FORGOTTEN
from tests.reference.client import Client
from tests.reference.fold import SlowFold

_OF_CLIENT = (
    "key", "clock_ms", "decay_from_ms", "gap_ms", "expires_ms", "quiet_until_ms", "rows", "distinct", "day", "minute",
    "rows_today", "rows_minute", "distinct_today", "explained_today", "tokens_today", "repeats", "variants",
    "offgrid_rows", "offgrid_fields", "low_margin_rows", "member_rows", "explained_rows", "cells", "ring_size",
    "unreadable_rows", "unjudged_rows", "ring_next", "statistic", "level",
)  # fmt: skip
_OF_FAMILY = (
    "mask", "step2", "touched_row", "first_ms", "last_ms", "variants", "flips", "label", "label_a", "label_b", "rows_a",
    "rows_b", "rows_other", "direction",
)  # fmt: skip
_SCORES = ("score", "best_score", "back_score")  # as text: NaN equals nothing


def picture(table: ClientTable) -> dict[int, dict[str, Any]]:
    """All clients of a kernel table as plain values."""
    arrays = table.table
    slots = [slot for slot in arrays.places.tolist() if slot >= 0]
    return {int(arrays.clients[slot]["key"]): _client_picture(table, slot) for slot in slots}


def _client_picture(table: ClientTable, slot: int) -> dict[str, Any]:
    arrays, client = table.table, table.table.clients[slot]
    start, mask = int(client["ring_start"]), int(client["ring_mask"])
    ring = {i: _entry_picture(table, start + i) for i in range(int(client["ring_size"])) if mask >> i & 1}
    assert mask < 1 << max(1, int(client["ring_size"]))
    first = int(client["anchor_start"])
    families = [_family_picture(table, first + i) for i in range(int(client["anchor_count"]))]
    plain = {name: client[name].item() for name in _OF_CLIENT}
    assert slot < len(arrays.clients) == len(arrays.bets)
    plain["bets"] = arrays.bets[slot].tolist()
    plain["averages"] = _averages_picture(table, int(client["page"]))
    plain |= _receipts_picture(table, slot)
    return plain | {"ring": ring, "families": families, "family_room": int(client["anchor_size"])}


def _receipts_picture(table: ClientTable, slot: int) -> dict[str, Any]:
    client = table.table.clients[slot]
    start, size, first = (int(client[f"receipt_{name}"]) for name in ("start", "size", "first"))
    page = table.table.receipts[start : start + int(client["receipt_count"])]
    forgotten = int(client["forgotten_ms"])
    return {
        "receipts": [(int(one["time_ms"]), int(one["exact"])) for one in np.roll(page, -first)],
        "receipt_room": size,
        "forgotten_ms": None if forgotten == NOTHING_FORGOTTEN else forgotten,
        "record": (int(client["record_source"]), int(client["record_offset"])),
    }


def _entry_picture(table: ClientTable, e: int) -> tuple[Any, ...]:
    arrays, entry, d, f = table.table, table.table.ring[e], table.dim, table.fields
    name = arrays.ring_ids[e].tobytes()[: int(entry["id_length"])]
    return (
        arrays.ring_values[e, :d].tolist(), arrays.ring_fields[e, :f].tolist(), int(entry["exact"]),
        str(entry["score"].item()), int(entry["label"]), name,
    )  # fmt: skip


def _averages_picture(table: ClientTable, at: int) -> dict[str, Any] | None:
    if at < 0:
        return None
    page, (fast, slow) = table.table.pages[at], table.table.averages[at].tolist()
    told = page["told_day"].item()
    plain = {"since_ms": page["since_ms"].item(), "rows": page["rows"].item(), "fast": fast, "slow": slow}
    return plain | {"told_day": None if told == -(2**31) else told}


def _family_picture(table: ClientTable, a: int) -> dict[str, Any]:
    arrays, family, d, f = table.table, table.table.anchors[a], table.dim, table.fields
    return {name: family[name].item() for name in _OF_FAMILY} | {
        **{name: str(family[name].item()) for name in _SCORES},
        "references": [
            (
                arrays.anchor_values[a, z, :d].tolist(), arrays.anchor_fields[a, z, :f].tolist(),
                int(arrays.anchor_exact[a, z]),
            )
            for z in range(3)
        ],
        "before_last": arrays.anchor_values[a, 3, :d].tolist(),
        "known": sorted(exact for exact in arrays.anchor_exact[a, 4:].tolist() if exact),
        "ids": [arrays.anchor_ids[a, i].tobytes().rstrip(b"\0") for i in range(2)],
        "wealth": arrays.wealth[a].tolist(), "parts": arrays.parts[a].tolist(), "seen": arrays.seen[a].tolist(),
        "changed": arrays.changed[a].tolist(),
    }  # fmt: skip


def slow_picture(twin: SlowFold) -> dict[int, dict[str, Any]]:
    return {key: _slow_client(client) for key, client in twin.clients.items()}


def _slow_client(client: Client) -> dict[str, Any]:
    ring = {
        place: (entry.values, entry.fields, entry.exact, str(entry.score), entry.label, entry.request_id)
        for place, entry in sorted(client.ring.items())
    }
    families = [
        {name: getattr(family, name) for name in (*_OF_FAMILY, "wealth", "parts", "seen", "changed", "ids")}
        | {
            **{name: str(getattr(family, name)) for name in _SCORES},
            "references": [(ref.values, ref.fields, ref.exact) for ref in family.references[:3]],
            "before_last": family.references[3].values,
            "known": sorted(exact for exact in family.known[-12:] if exact),
        }
        for family in client.families
    ]
    own = (*_OF_CLIENT, "bets", "receipts", "receipt_room", "forgotten_ms", "record")
    plain = {name: getattr(client, name) for name in own}
    plain["averages"] = client.averages and vars(client.averages)
    return plain | {"ring": ring, "families": families, "family_room": client.family_room}
