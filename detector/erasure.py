"""Clients taken out of stored state; everybody else's stays what it was."""

from collections.abc import Collection

import msgspec

from detector import engine
from detector.breaker import held
from models.client_table import without
from models.kernels.layout import block_of


def erased(value: bytes, clients: Collection[int]) -> bytes | None:
    """A dumped block without some clients; None if it holds nothing of them. Raises engine.BlockError."""
    partition, block, offset = engine.block_mark(value)
    body = engine.body_of(value)
    here = {client for client in clients if block_of(client, body.blocks) == block}
    breaker = held.without(body.breaker, clients)
    if not here and breaker == body.breaker:
        return None
    try:
        spaces = {name: without(saved, here) for name, saved in body.spaces.items()}
    except (KeyError, ValueError) as error:
        raise engine.DamagedBlockError(f"block {block} of partition {partition}: {type(error).__name__}") from error
    allowed = [one for one in body.allowed if one[0] not in here]
    blocked = [one for one in body.blocked if one[0] not in here]
    if (spaces, allowed, blocked, breaker) == (body.spaces, body.allowed, body.blocked, body.breaker):
        return None
    changed = msgspec.structs.replace(body, spaces=spaces, allowed=allowed, blocked=blocked, breaker=breaker)
    return engine.seal(msgspec.msgpack.encode(changed), partition, block, offset)
