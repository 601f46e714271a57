"""The archive: what it gives back, how it goes on, what erasure leaves, and that replays of it are what was live."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from detector.frame import ControlFrame, Frame, RowFrame, ShiftFrame, label
from models.pseudonym import pseudonym
from streams import files
from streams.cli import app
from streams.config.config import Config
from streams.history.archive import ArchiveError, Message, Writer, layout, open_archive, writer
from streams.history.archive.columns import ColumnGroup, table_of
from streams.history.archive.erase import Erased, erase
from streams.history.base import FrameBatch
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.wire import frames
from tests.archives import archived
from tests.frame_rows import rows

DAY_MS = 86_400_000
BEGIN_MS = 1_767_225_600_000  # 2026-01-01
SPACES = (("loan", 8, 5), ("words", 64, 0))


def a_frame(offset: int, count: int, partition: int = 0, space: int = 0) -> RowFrame:
    """Every column filled; the widths of one of two spaces, one of three sources."""
    model, d, f = SPACES[space]
    content = rows(count, d, f, seed=1_000 * partition + offset)
    content = content._replace(source=np.full(count, offset % 3, np.uint32))
    return RowFrame(partition, offset, model, f"{model}@0123", f"gateway-logs[{offset % 3}]", "k1", content)


def of_several(offset: int, count: int, partition: int = 0) -> RowFrame:
    """The same with rows of two raw partitions in turn."""
    one = a_frame(offset, count, partition)
    rows = one.rows._replace(source=(np.arange(count) % 2 * 7).astype(np.uint32))
    names = {0: "gateway-logs[0]", 7: "gateway-logs[5]"}
    return replace(one, source_name=label({source: names[source] for source in set(rows.source.tolist())}), rows=rows)


def test_a_source_with_two_names_is_damage() -> None:
    batch = table_of([(of_several(8, 6), 0)])
    assert [frame.source_of(1) for frame in ColumnGroup(pa.Table.from_batches([batch]), "here").frames()] == [
        "gateway-logs[5]"
    ]
    place = batch.schema.get_field_index("source_name")
    for names in (["a[0]"] * 6, [f"a[{n}]" for n in range(6)]):
        forged = batch.set_column(place, batch.schema.field(place), pa.array(names).dictionary_encode())
        with pytest.raises(ArchiveError, match="here: damaged: rows that no frame can have held"):
            ColumnGroup(pa.Table.from_batches([forged]), "here")


def message(frame: Frame, time_ms: int = -1) -> Message:
    value = frames.encode(frame) if isinstance(frame, RowFrame) else frames.encode_control(frame)
    return Message(frame.partition, frame.offset, b"k", value, time_ms)


def order(offset: int, client: int = 7, partition: int = 0) -> ControlFrame:
    return ControlFrame(partition, offset, "allow", client, pseudonym("k1", client, bytes(9)), "loan", 1, "test")


def same(found: Iterable[Frame], wanted: Iterable[Frame]) -> None:
    found, wanted = list(found), list(wanted)
    assert [(one.partition, one.offset) for one in found] == [(one.partition, one.offset) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        if isinstance(one, RowFrame) and isinstance(other, RowFrame):
            assert frames.encode(one) == frames.encode(other)
        else:
            assert one == other


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """Two partitions, two spaces, three sources, orders and shifts between them; small row groups and files."""
    monkeypatch.setattr(layout, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(writer, "FILE_ROWS", 400)
    made: list[Frame] = []
    for partition in (0, 1):
        for offset in range(0, 90, 2 - partition):
            if offset % 10 == 4:
                made.append(order(offset, client=offset, partition=partition))
            elif offset % 10 == 6:
                made.append(ShiftFrame(partition, offset, "loan", "loan@0123", 1, 2, 3, (1, -2, 3)))
            elif offset % 10 == 8:
                made.append(of_several(offset, 1 + offset % 37, partition))
            else:
                made.append(a_frame(offset, 1 + offset % 37, partition, offset % 3 % 2))
    return made


def at(frame: Frame) -> Message:
    """Half a minute between messages, from a minute before midnight."""
    return message(frame, BEGIN_MS - 60_000 + 30_000 * (frame.offset // 2))


def test_frames_come_back_as_they_were(tmp_path: Path, history: list[Frame]) -> None:
    kept = open_archive(archived(tmp_path, map(at, history)))
    assert kept.partitions == [0, 1]
    for partition in kept.partitions:
        same(kept.frames(partition), [frame for frame in history if frame.partition == partition])
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet"))
    assert files[0] == "day=2025-12-31/rows-0-00000000000000000000.parquet"
    assert {file.partition("/")[0] for file in files} == {"day=2025-12-31", "day=2026-01-01"}
    assert sum("rows-0-" in file for file in files) > 2


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
def test_arrays_are_such_as_kernels_are_compiled_for(tmp_path: Path, kind: type[np.generic]) -> None:
    (frame,) = open_archive(archived(tmp_path, [message(a_frame(0, 9))])).frames(0)
    assert isinstance(frame, RowFrame)
    for column in frame.rows:
        assert column.flags.c_contiguous and column.flags.writeable and column.flags.aligned


def test_ranges(tmp_path: Path, history: list[Frame]) -> None:
    kept = open_archive(archived(tmp_path, map(at, history)))
    ours = [frame for frame in history if frame.partition == 0]
    same(kept.frames(0, first=14, last=40), [frame for frame in ours if 14 <= frame.offset <= 40])
    times = np.concatenate([frame.rows.time_ms for frame in ours if isinstance(frame, RowFrame)])
    since, until = int(np.quantile(times, 0.4)), int(np.quantile(times, 0.41))
    offsets = [
        frame.offset for frame in kept.frames(0, since_ms=BEGIN_MS - DAY_MS, until_ms=int(np.quantile(times, 0.3)))
    ]
    orders = [frame.offset for frame in ours if not isinstance(frame, RowFrame)]
    assert offsets == sorted(offsets) and set(orders) < set(offsets)
    found = [frame for frame in kept.frames(0, since_ms=since, until_ms=until) if isinstance(frame, RowFrame)]
    wanted = [
        frame
        for frame in ours
        if isinstance(frame, RowFrame) and ((frame.rows.time_ms >= since) & (frame.rows.time_ms < until)).any()
    ]
    assert 0 < len(wanted) < len(ours)
    same(found, wanted)
    first = next(f for f in ours if isinstance(f, RowFrame) and (f.rows.time_ms >= since).any())
    assert kept.offset_at(0, since) == first.offset
    assert kept.offset_at(0, int(times.max()) + 1) is None


def test_one_client(tmp_path: Path, history: list[Frame]) -> None:
    chosen = next(frame for frame in history if isinstance(frame, RowFrame) and frame.rows.count > 3)
    key = int(chosen.rows.client[2])
    kept = open_archive(archived(tmp_path, map(at, history)))
    found = [frame for frame in kept.frames(0, client=key) if isinstance(frame, RowFrame)]
    assert [(frame.offset, frame.rows.client.tolist()) for frame in found] == [(chosen.offset, [key])]
    assert found[0].rows.request_id(0) == chosen.rows.request_id(2)
    about = {type(frame) for frame in kept.frames(0, client=key)}
    assert about == {RowFrame, ShiftFrame}
    assert [frame.offset for frame in kept.frames(0, client=44) if isinstance(frame, ControlFrame)] == [44]


def test_what_is_no_frame_is_kept_as_it_was_and_told(tmp_path: Path) -> None:
    junk = Message(2, 42, b"key", b"junk", BEGIN_MS, (("a", b"b"),))
    empty = message(a_frame(43, 0, 2))
    archived(tmp_path / "x", [message(order(41, partition=2), BEGIN_MS), junk, empty, Message(2, 44, None, None)])
    (source,) = open_sources([str(tmp_path / "x")], Config())
    (batch,) = source.batches()
    assert isinstance(batch, FrameBatch)
    assert [frame.offset for frame in batch.frames] == [41, 43]
    assert [(reject.partition, reject.offset) for reject in batch.rejects] == [(2, 42), (2, 44)]
    assert "expected a frame or a control order; got damaged frame: checksum mismatch" in batch.rejects[0].message
    (path,) = tmp_path.rglob("other-*.parquet")
    assert pq.read_table(path).to_pylist()[1] == {
        "partition": 2, "offset": 42, "frame_ms": BEGIN_MS, "key": b"key", "value": b"junk", "headers": [("a", b"b")],
    }  # fmt: skip


def test_a_run_that_was_cut_off_is_gone_on_with(tmp_path: Path, history: list[Frame]) -> None:
    """Wherever it is cut, the next run begins where the manifest says, and nothing is missing or doubled."""
    ours = [at(frame) for frame in history if frame.partition == 0]
    runs, read = 0, 0
    while runs < 100:
        runs += 1
        try:
            with Writer(tmp_path, "requests") as kept:
                first = kept.begin(0, 0)
                for number, one in enumerate(one for one in ours if one.offset >= first):
                    if number == 17 + runs:
                        raise KeyboardInterrupt
                    kept.add(one)
                    read += 1
        except KeyboardInterrupt:
            assert not list(tmp_path.rglob("*" + files.UNFINISHED))
        else:
            break
    assert runs > 1 and read > len(ours)
    same(open_archive(tmp_path).frames(0), [frame for frame in history if frame.partition == 0])


def test_files_beyond_the_manifest_do_not_count(tmp_path: Path, history: list[Frame]) -> None:
    """As a process leaves them that was killed between the last file and the manifest."""
    ours = [at(frame) for frame in history if frame.partition == 0]
    archived(tmp_path, ours[:20])
    before = (tmp_path / layout.MANIFEST).read_bytes()
    with Writer(tmp_path, "requests") as kept:
        kept.begin(0, ours[20].offset)
        for one in ours[20:30]:
            kept.add(one)
    (tmp_path / layout.MANIFEST).write_bytes(before)
    assert max(frame.offset for frame in open_archive(tmp_path).frames(0)) == ours[19].offset
    with Writer(tmp_path, "requests") as kept:
        kept.begin(0, ours[20].offset)
        for one in ours[20:]:
            kept.add(one)
    same(open_archive(tmp_path).frames(0), [frame for frame in history if frame.partition == 0])


def test_gaps_are_noted(tmp_path: Path) -> None:
    archived(tmp_path, [message(a_frame(3, 2))])
    with Writer(tmp_path, "requests") as kept:
        assert kept.begin(0, 0) == 4
        assert kept.begin(0, 9) == 9
        kept.add(message(a_frame(9, 2)))
    kept_now = open_archive(tmp_path)
    assert (kept_now.manifest.begins, kept_now.manifest.ends) == ({0: 3}, {0: 10})
    assert kept_now.manifest.gaps == [(0, 4, 9)]
    assert [kept_now.is_whole(0, offset) for offset in (2, 3, 8, 9, 10, 11)] == [False, False, False, True, True, False]


def test_another_topic_another_writer_and_another_folder_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "a", "requests", "id-1"), pytest.raises(ArchiveError, match="another process is writing"):
        Writer(tmp_path / "a", "requests", "id-1")
    with pytest.raises(ArchiveError, match="an archive of the topic requests; offsets would mix"):
        Writer(tmp_path / "a", "others")
    with pytest.raises(ArchiveError, match="requests before it was re-created"):
        Writer(tmp_path / "a", "requests", "id-2")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "letter.txt").touch()
    with pytest.raises(ArchiveError, match="neither empty nor an archive"):
        Writer(tmp_path / "b", "requests")
    with pytest.raises(ArchiveError, match=r"not an archive: archive\.json is missing"):
        open_archive(tmp_path / "b")


def test_damage_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    kept = open_archive(archived(tmp_path, [message(a_frame(3, 2))]))
    (path,) = tmp_path.rglob("rows-*.parquet")
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ArchiveError, match=r"rows-0-0+3\.parquet: not readable as Parquet"):
        list(kept.frames(0))
    (tmp_path / layout.MANIFEST).write_bytes(b"{")
    with pytest.raises(ArchiveError, match=r"archive\.json: damaged"):
        open_archive(tmp_path)


def test_erasure_takes_one_client_out_of_every_file(tmp_path: Path, history: list[Frame]) -> None:
    chosen = next(frame for frame in history if isinstance(frame, RowFrame) and frame.rows.count > 3)
    key = int(chosen.rows.client[2])
    alone = a_frame(91, 1)
    alone = RowFrame(0, 91, *SPACES[0][:1], "loan@0123", "gateway-logs[0]", "k1", alone.rows._replace(
        client=np.array([key], np.uint64), source=np.zeros(1, np.uint32)))  # fmt: skip
    about = order(92, client=key)
    archived(tmp_path, map(at, [*history, alone, about]))
    gone = erase(tmp_path, [key], Silent())
    assert gone == Erased(2, 1, 0, 3)
    assert erase(tmp_path, [key], Silent()) == Erased(0, 0, 0, 0)
    kept = open_archive(tmp_path)
    assert not list(kept.frames(0, client=key, first=90))
    for found in kept.frames(0):
        if isinstance(found, RowFrame):
            assert key not in found.rows.client.tolist()
    untouched = [frame for frame in history if frame.partition == 0 and frame is not chosen]
    same([frame for frame in kept.frames(0) if frame.offset != chosen.offset], untouched)


def call(*words: object) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_command_erases_a_client(tmp_path: Path, history: list[Frame]) -> None:
    kept = archived(tmp_path / "archive", map(message, history))
    (gone,) = call("archive", "erase", kept, "--client", pseudonym("k1", 44, bytes(9)), "--json")
    assert gone == {"rows": 0, "orders": 2, "blocks": 0, "files": 2}


def test_only_topics_are_archived(tmp_path: Path) -> None:
    for words in (["archive"], ["archive", "write"]):
        result = CliRunner().invoke(app, [*words, str(tmp_path / "x.parquet"), "--out", str(tmp_path / "archive")])
        assert result.exit_code == 2 and "x.parquet: expected kafka://host:port/topic" in result.stderr
