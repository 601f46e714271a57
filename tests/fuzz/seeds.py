"""Writes the corpus that fuzzing begins with: `python -m tests.fuzz.seeds`. Needed again when a layout changes."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import zstandard

from detector import engine, link
from detector.frame import CloseFrame, ControlFrame, ResultFrame, ShiftFrame
from models.pseudonym import pseudonym
from streams.wire import frames
from tests import malformed
from tests.fuzz import world
from tests.fuzz.block import LINK_HEAD
from tests.history import sweeps

CORPUS = Path(__file__).parent / "corpus"


def adapter() -> Iterator[bytes]:
    rng = random.Random(1)
    rows = [json.dumps(row | {"request_id": f"r{n}"}).encode() for n, row in enumerate(sweeps(1, 3, seed=2))]
    yield from (rows[0], b"[" + b",".join(rows) + b"]", b"\n".join(rows), b"[" + rows[0] + b"," + rows[1][:40])
    yield rows[0][:-1] + b',"embedding":"AACAPwAAAEA=","operation":"explain","tokens_in":7,"client_class":"broker"}'
    yield rows[0][:-1] + b',"embedding":{"data":[1,2.5,-3e2],"dim":3,"encoding":"float","dtype":"float32"}}'
    yield from (text for kind in malformed.KINDS if len(text := kind.make(rng)) < 4_000)


def frame() -> Iterator[bytes]:
    probing = world.probing()
    client, tail = int(probing.rows.client[0]), probing.rows.client_tail[0].tobytes()
    name = pseudonym(probing.key_id, client, tail)
    yield frames.encode(probing)
    yield b"\x02" + frames.encode(probing)[: -frames.CHECKSUM_BYTES]
    for action in ("allow", "lift", "other"):
        yield frames.encode_control(ControlFrame(0, 1, action, client, name, "", 1_700_100_000_000, "spoken to"))
    vector = tuple(range(probing.rows.values.shape[1]))
    yield frames.encode_control(ShiftFrame(0, 1, probing.model, probing.space, 1, 2, 3, vector))
    yield frames.encode_control(CloseFrame(0, 1, 60_000, "drift"))
    yield frames.encode_control(ResultFrame(0, 1, "other", "x", 60_000, b'{"rows":1}'))
    yield b"\x01\x08" + random.Random(2).randbytes(600)


def block() -> Iterator[bytes]:
    state = engine.open_partition(world.settings(), 0)
    engine.step(state, world.probing())
    for number in range(world.CONFIG.state.blocks):
        value = engine.dump_block(state, number)
        yield value
        yield b"\x01" + zstandard.ZstdDecompressor().decompress(value[engine.BLOCK_HEAD_BYTES :])
    yield b"\x03"
    yield from (b"\x03" + random.Random(seed).randbytes(4 * seed) for seed in (1, 2, 5, 9))
    models = link.LinkState.of(world.CONFIG, world.artefacts())
    models.step([world.probing()])
    yield b"\x02" + zstandard.ZstdDecompressor().decompress(models.dump()[len(LINK_HEAD) :])


def main() -> None:
    for name, made in (("adapter", adapter()), ("frame", frame()), ("block", block())):
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, value in enumerate(made):
            (folder / f"seed-{number:03}").write_bytes(value)


if __name__ == "__main__":
    main()
