"""One client taken out of stored state; everybody else's stays what it was."""

import msgspec

from detector import engine
from models.clients import without


def erased(value: bytes, client: int) -> bytes | None:
    """A dumped block without a client; None if it holds nothing of it. Raises engine.BlockError."""
    partition, block, offset, layout = engine.block_mark(value)
    body = engine.body_of(value, layout)
    if client % body.blocks != block:
        return None
    try:
        spaces = {name: without(saved, client) for name, saved in body.spaces.items()}
    except (KeyError, ValueError) as error:
        raise engine.DamagedBlockError(f"block {block} of partition {partition}: {type(error).__name__}") from error
    allowed = [one for one in body.allowed if one[0] != client]
    blocked = [one for one in body.blocked if one[0] != client]
    if (spaces, allowed, blocked) == (body.spaces, body.allowed, body.blocked):
        return None
    changed = msgspec.structs.replace(body, spaces=spaces, allowed=allowed, blocked=blocked)
    return engine.seal(msgspec.msgpack.encode(changed), partition, block, offset)
