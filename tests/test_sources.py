"""Sources: files of every packing, folders, archives; positions; and what is said about what cannot be read."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zstandard

from streams.config.config import Config
from streams.history.base import BATCH_RECORDS, RawBatch, SourceError
from streams.history.sources import open_sources

LINES = [json.dumps({"request_id": str(n)}).encode() for n in range(BATCH_RECORDS + 7)]


def raw(specs: Sequence[Path | str]) -> Iterator[RawBatch]:
    for source in open_sources([str(spec) for spec in specs], Config()):
        for batch in source.batches():
            assert isinstance(batch, RawBatch)
            yield batch


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_packing_moves_no_position(tmp_path: Path, suffix: str) -> None:
    text = b"\n".join(LINES)
    packed = {
        "": text,
        ".gz": gzip.compress(text),
        ".zst": zstandard.compress(text[:999]) + zstandard.compress(text[999:]),
    }
    path = tmp_path / f"log.jsonl{suffix}"
    path.write_bytes(packed[suffix])
    batches = list(raw([path]))
    assert {(batch.topic, batch.partition) for batch in batches} == {("log.jsonl", 0)}
    records = [record for batch in batches for record in batch.records]
    assert [(record.offset, record.value) for record in records] == list(enumerate(LINES))
    assert max(len(batch.records) for batch in batches) == BATCH_RECORDS


def test_progress_adds_up_to_the_size(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(LINES)))
    (source,) = open_sources([str(path)], Config())
    steps: list[int] = []
    assert sum(1 for _ in source.batches(steps.append)) == 2
    assert sum(steps) == source.size == path.stat().st_size


def test_blank_lines_keep_their_number(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"{}\r\n\n  \n{}\n")
    (batch,) = raw([path])
    assert [(record.offset, record.value) for record in batch.records] == [(0, b"{}"), (3, b"{}")]


def test_a_kafka_position_in_the_record_is_kept(tmp_path: Path) -> None:
    places = [("gw", 0, 5), ("gw", 1, 9), ("gw", 0, 6)]
    lines = [
        json.dumps({"_kafka": dict(zip(("topic", "partition", "offset"), place, strict=True))}) for place in places
    ]
    lines += [
        '{"prompt": "\\"_kafka\\": {\\"topic\\""}',
        '{"_kafka": {"topic": "gw", "partition": -1, "offset": 0}}',
        '"_kafka"',
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines))
    found = [(batch.topic, batch.partition, [record.offset for record in batch.records]) for batch in raw([path])]
    assert found == [("gw", 0, [5, 6]), ("gw", 1, [9]), ("log.jsonl", 0, [3, 4, 5])]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    assert [batch.topic for batch in raw([tmp_path])] == ["a/z.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("absent.jsonl", "no such file or folder"),
        ("log.csv", "not a source; expected .jsonl"),
        ("empty", "no .jsonl, .jsonl.gz, .jsonl.zst file in this folder, and no archive"),
        ("kafka://host:1", "expected kafka://host:port/topic"),
        ("kafka://host:1/topic?form=1", "expected kafka://host:port/topic"),
        ("kafka://host:1/topic?from=-1", "from: expected a whole number from 0; got '-1'"),
    ],
)
def test_a_bad_source_is_told_before_anything_is_read(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "log.csv").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError) as caught:
        open_sources([spec if "://" in spec else str(tmp_path / spec)], Config())
    assert message in str(caught.value)


def test_two_sources_of_one_name_would_share_positions(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "log.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match=r"log\.jsonl: given twice"):
        open_sources([str(tmp_path / "a"), str(tmp_path / "b")], Config())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jsonl.gz", gzip.compress(b"{}\n" * 999, mtime=0)[:-9]),
        ("cut.jsonl.zst", zstandard.compress(b"{}\n" * 999)[:-9]),
        ("not.jsonl.zst", b"{}\n"),
    ],
)
def test_a_damaged_file_is_an_error_not_an_end(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name):
        list(raw([tmp_path / name]))


def test_a_position_is_looked_for_in_any_record_without_harm(tmp_path: Path) -> None:
    deep = b'{"prompt":"\\"_kafka\\"","_kafka":' + b"[" * 100_000
    (tmp_path / "a.jsonl").write_bytes(
        deep + b"\n" + b'{"_kafka":"\xff"}\n{"_kafka":{"topic":"t","partition":1,"offset":7}}\n'
    )
    batches = raw([tmp_path / "a.jsonl"])
    found = [(batch.topic, batch.partition, record.offset) for batch in batches for record in batch.records]
    assert found == [("a.jsonl", 0, 0), ("a.jsonl", 0, 1), ("t", 1, 7)]
