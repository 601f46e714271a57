"""Records, files, batches and states that are huge, deep, or become so when they are unpacked."""

import gzip
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import zstandard
from aiokafka.codec import snappy_encode
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from detector import engine, link
from detector.link_fold import StateError
from detector.state.packing import BODY_BYTES_MIN
from models.kernels.layout import CLIENT
from models.rows import FLAG_UNJUDGED, FLAG_UNREADABLE
from models.validate import UnsoundError, check_clients
from streams.adapters import native
from streams.config.config import Config
from streams.kafka import clients, codecs, topics
from streams.kafka.broker import probe
from streams.metrics import Metrics
from streams.sketch.sketcher import RawRecord
from streams.wire import frames
from streams.wire.dead_letter import OMITTED_HEADER, DeadLetterTopic
from streams.wire.rejects import Record, Reject, dead_letters
from tests.fuzz import world
from tests.fuzz.block import LINK_HEAD
from tests.history import Row, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import read_topic
from tests.sketching import decoded

MB = 2**20
HANG_S = 10
"""Far above what the reading costs anywhere, far below what quadratic work would."""
CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def good() -> Row:
    return sweeps(1, 1, seed=6)[0] | {"request_id": "r-1"}


def rejected(value: bytes) -> tuple[list[Reject], int, float]:
    """Rejects, rows and processor seconds for one message."""
    begun = time.process_time()
    result = world.sketcher().frames("gateway-logs", 3, "0", [RawRecord(5, value, None, (), -1)], 12)
    return result.rejects, sum(frame.rows.count for frame in result.frames), time.process_time() - begun


def told(value: bytes) -> tuple[list[Reject], int, float]:
    """Rejects, the flags of the only row, and processor seconds for one message."""
    begun = time.process_time()
    result = world.sketcher().frames("gateway-logs", 3, "0", [RawRecord(5, value, None, (), -1)], 12)
    ((flags,),) = (frame.rows.flags.tolist() for frame in result.frames)
    return result.rejects, flags, time.process_time() - begun


def text(row: Row, more: bytes = b"") -> bytes:
    return json.dumps(row).encode()[:-1] + more + b"}"


@pytest.mark.parametrize("value", [b'{"prompt":"' + b"x" * 50 * MB + b'"}', b"[" * 50 * MB, b"\n" * 50 * MB])
def test_50_megabytes_are_refused_unread(value: bytes) -> None:
    rejects, rows, _ = rejected(value)
    assert [reject.reason for reject in rejects] == ["size"] and not rows


@pytest.mark.parametrize("levels", [501, 30_000])
@pytest.mark.parametrize("member", ['"prompt":', '"features":', '"embedding":', '"output":{"scores":'])
def test_levels_without_end(member: str, levels: int) -> None:
    """What is too deep is absent, and held against the client."""
    opened = b"," + member.encode() + b"[" * levels + b"]" * levels + (b"}" if "{" in member else b"")
    rejects, flags, seconds = told(text(good(), opened))
    lost = [reject.field for reject in rejects]
    assert (lost, flags & FLAG_UNJUDGED > 0) == ((["features"], True) if "features" in member else ([], False))
    assert flags & FLAG_UNREADABLE and seconds < HANG_S
    rejects, flags, _ = told(text({"request_id": "r", "client_id": "c"}, opened))
    assert [reject.field for reject in rejects] == ["ts"] and flags & FLAG_UNJUDGED and flags & FLAG_UNREADABLE


def test_100_000_levels_are_only_brackets_to_us() -> None:
    for value in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000):
        faults = decoded(value)
        assert len(faults) == 1 and faults[0].reason in ("nesting", "malformed")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        (b',"output":{"score":1e999}', []),
        (b',"output":{"score":NaN}', []),
        (b',"output":{"score":-Infinity}', []),
        (b',"output":{"score":1' + b"0" * 5_000 + b"}", []),
        (b',"features":{"income":1e999}', ["features.income"]),
        (b',"features":{"income":-1e400}', ["features.income"]),
        (b',"tokens_in":18446744073709551616', []),
        (b',"tokens_in":-0.5', []),
        (b',"ts":1e999', ["ts"]),
        (b',"ts":-1e18', ["ts"]),
        (b',"ts":-0', ["ts"]),
        (b',"client_id":"\\ud800"', []),
    ],
)
def test_numbers_that_are_none_and_keys_given_twice(more: bytes, lost: list[str]) -> None:
    """The last of two members counts, as in every reader we know of: one that is bad is not saved by a good one. What
    is left is judged; where nothing is left, the row only counts."""
    rejects, flags, _ = told(text(good(), more))
    assert [reject.field for reject in rejects] == lost
    assert flags & FLAG_UNREADABLE and (flags & FLAG_UNJUDGED > 0) == bool(lost)
    twice = json.dumps(good()).encode()
    assert rejected(b"{" + more[1:] + b"," + twice[1:])[1] == 1


def test_of_two_members_the_last_counts() -> None:
    frames = [
        world.sketcher().frames("t", 0, "0", [RawRecord(0, value, None, (), -1)], 1).frames[0].rows
        for value in (text(good(), b',"client_id":"x","tokens_in":-0'), text(good() | {"client_id": "x"}))
    ]
    assert frames[0].client[0] == frames[1].client[0] and frames[0].tokens_in[0] == 0


def test_100_000_feature_names_cost_their_reading_only() -> None:
    row = good()
    many = row | {"features": {f"f{n}": n % 7 for n in range(4_000)} | row["features"]}
    rejects, rows, seconds = rejected(json.dumps(many).encode())
    assert not rejects and rows == 1 and seconds < HANG_S
    value = json.dumps(row | {"features": {f"f{n}": n for n in range(100_000)}}).encode()
    (request,) = decoded(value)
    assert len(value) < 2 * MB and not hasattr(request, "got")


async def test_a_50_megabyte_record_becomes_a_small_dead_letter(embedded_broker: str, namespace: str) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, 1)
    value = b"x" * 50 * MB
    reject = Reject(config.topics.raw[0], 0, 7, -1, "record", "at most 1000000 bytes", f"{len(value)} bytes", "size")
    letters = dead_letters([reject], {7: Record(b"k" * MB, value, [("probewatch-x", value)])}, native.elements)
    producer = clients.producer(config, await probe(config.kafka), topics.dead_letter_bytes(config))
    await producer.start()
    await DeadLetterTopic(producer, config, Metrics()).send(letters)
    await producer.stop()
    (letter,) = await read_topic(config, config.topics.dlq)
    headers = dict(letter.headers)
    assert letter.value == b"" and headers[OMITTED_HEADER] == b"%d" % len(value)
    assert headers["__streams.errors.offset"] == b"7" and sum(map(len, headers.values())) < 1_000


def peak_mb(code: str, *arguments: str) -> int:
    """What running some code adds to the memory of a fresh process."""
    program = (
        "import resource, sys\n"
        "from streams.history.sources import open_sources\nfrom streams.config.config import Config\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        f"before = peak()\n{code}\nprint(peak() - before)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=os.environ, check=True
    )
    return int(ran.stdout)


READ = """
lengths = [len(record.value) for source in open_sources(sys.argv[1:], Config())
           for batch in source.batches() for record in batch.records]
assert max(lengths) == 8_000_001 and len(lengths) == 3, lengths
"""


GIGABYTE = 1_024


@pytest.mark.parametrize(
    ("suffix", "megabytes"),
    [
        (".jsonl", 200),
        (".jsonl.gz", 200),
        (".jsonl.zst", GIGABYTE),
        pytest.param(".jsonl.gz", GIGABYTE, marks=pytest.mark.nightly),
    ],
)
def test_a_line_of_a_packed_gigabyte_is_cut(tmp_path: Path, suffix: str, megabytes: int) -> None:
    """A whole gigabyte of zstd; of gzip, which takes its time, nightly. 200 MB show as well whether memory grows."""
    path = tmp_path / f"bomb{suffix}"
    with _writer(path) as file:
        file.write(b'{"a":1}\n')
        for _ in range(megabytes):
            file.write(b"x" * MB)
        file.write(b'\n{"a":2}\n')
    assert peak_mb(READ, str(path)) < 100
    assert path.stat().st_size < 5 * MB or suffix == ".jsonl"


def _writer(path: Path):  # type: ignore[no-untyped-def]
    if path.suffix == ".gz":
        return gzip.open(path, "wb", compresslevel=1)
    return zstandard.open(path, "wb") if path.suffix == ".zst" else path.open("wb")


def batch(codec: str, value: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=CODECS[codec], is_transactional=False, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 30,
    )  # fmt: skip
    builder.append(0, timestamp=1, key=None, value=value, headers=[])
    return bytes(builder.build())


@pytest.mark.parametrize("codec", CODECS)
def test_batches_of_kafka_expand_only_so_far(codec: str) -> None:
    codecs.install(codecs.BATCH_BYTES_MAX)
    value = json.dumps(good()).encode() * 50
    (record,) = DefaultRecordBatch(batch(codec, value))
    assert record.value == value
    bomb = batch(codec, bytes(codecs.BATCH_BYTES_MAX))
    with pytest.raises(codecs.ExpansionError, match="67,108,864"):
        list(DefaultRecordBatch(bomb))


def test_snappy_of_the_java_client_is_read() -> None:
    assert codecs.snappy(snappy_encode(b"abc" * 50_000)) == b"abc" * 50_000
    assert codecs.snappy(snappy_encode(b"abc", xerial_compatible=False)) == b"abc"


def packed(size: int, *, declared: bool) -> bytes:
    """Zeros; a frame that says how long it is, or that does not."""
    return zstandard.ZstdCompressor(write_content_size=declared).compress(bytes(size))


CLAIMS = b"\x28\xb5\x2f\xfd\xe0" + (1 << 60).to_bytes(8, "little") + packed(10, declared=True)[6:]
"""A zstd frame whose head says an exabyte."""


@pytest.mark.parametrize(
    "body", [packed(BODY_BYTES_MIN + 1, declared=True), packed(BODY_BYTES_MIN + 1, declared=False), CLAIMS]
)
def test_stored_states_expand_only_so_far(body: bytes) -> None:
    settings = world.settings()
    with pytest.raises(StateError):
        link.LinkState.of(world.CONFIG, world.artefacts()).load(LINK_HEAD + body)
    state = engine.open_partition(settings, 0)
    with pytest.raises(engine.DamagedBlockError):
        engine.load_block(state, resealed(body))


def resealed(body: bytes) -> bytes:
    """A block around something already packed, its checksum right."""
    whole = engine.seal(b"", 0, 0, 1)
    head = whole[8 : engine.BLOCK_HEAD_BYTES]
    return whole[:4] + zlib.crc32(head + body).to_bytes(4, "big") + head + body


def block_of(change: Callable[[np.ndarray], object]) -> bytes:  # type: ignore[type-arg]
    """A block with one column of its clients overwritten, sealed again."""
    state = engine.open_partition(world.settings(), 0)
    engine.step(state, world.placed(world.probing(), 0))
    number = int(world.probing().rows.client[0] % 2)
    whole = engine.dump_block(state, number)
    body = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(whole[engine.BLOCK_HEAD_BYTES :]))
    (saved,) = body["spaces"].values()
    records = np.frombuffer(saved["clients"], CLIENT).copy()
    change(records)
    saved["clients"] = records.tobytes()
    return engine.seal(msgspec.msgpack.encode(body), 0, number, 1)


FORGED = {
    "ring_size": 2**30, "ring_next": 65, "anchor_count": 17, "anchor_size": 3, "page": 5, "distinct": -5,
    "clock_ms": 2**62, "expires_ms": -(2**63), "revision": 2**31 - 1, "level": 9, "doublings": -1, "key": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_clients_that_no_fold_has_made_are_refused(name: str) -> None:
    """Kernels check nothing: such a block would have them write wherever it says."""
    engine.load_block(engine.open_partition(world.settings(), 0), block_of(lambda records: None))
    state = engine.open_partition(world.settings(), 0)
    forged = FORGED[name] if name != "key" else None
    with pytest.raises(engine.DamagedBlockError):
        engine.load_block(
            state, block_of(lambda r: r[name].fill(forged) if forged is not None else np.add(r[name], 1, out=r[name]))
        )
    assert state.clients == 0


def test_every_bound_of_a_client_is_told_by_name() -> None:
    records = np.zeros(1, CLIENT)
    check_clients(records, 0, 2)
    records["rows"] = -1
    with pytest.raises(UnsoundError, match="rows"):
        check_clients(records, 0, 2)


def test_arrow_that_claims_more_than_it_holds() -> None:
    """Compressed, or with a length that its buffers do not have: refused before room is made."""
    value = bytearray(frames.encode(world.probing())[: -frames.CHECKSUM_BYTES])
    rows = world.probing().rows.count.to_bytes(8, "little")
    refused = 0
    place = value.find(rows)
    while place >= 0:
        forged = value.copy()
        forged[place : place + 8] = (2**40).to_bytes(8, "little")
        with pytest.raises(frames.FrameError):
            frames.decode(frames.checksummed(bytes(forged)), 0, 0)
        refused, place = refused + 1, value.find(rows, place + 1)
    assert refused > 5 and pa.total_allocated_bytes() < 64 * MB


def test_the_limits_of_the_configuration_hold_the_years_that_events_can_write() -> None:
    with pytest.raises(ValueError, match="9000"):
        Config.model_validate({"input": {"latest": "9500-01-01"}})
