"""What a fetch becomes: records, a bounded amount at a time, whatever stands in the log.

A broker stores batches compressed and hardly looks into them. One that expands without end, or that cannot be unpacked,
would end every reader at its place, and again after each restart. It is passed over by its header, which stands
uncompressed and names its offsets: in its place comes one record whose value says so.

aiokafka unpacks all that a fetch has brought at once: four megabytes of log can be gigabytes. Here a partition returns
at most FETCHED_BYTES at a time, and what is left with the next call.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka import ConsumerRecord
from aiokafka.consumer import fetcher

from streams.kafka import codecs
from streams.kafka.skipped_batch import SkippedBatch

FETCHED_BYTES = 4 * 2**20
"""Of keys and values; a single batch may be as long as input.max_batch_bytes."""

DAMAGED = "Invalid CRC"
"""How aiokafka's error begins for a batch that is not as its producer wrote it: damaged on a disk or on its way."""


class _Batches:
    """aiokafka's MemoryRecords, which remembers the batch that was taken last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.current: Any = None

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        self.current = None
        self.current = self._records.next_batch()
        return self.current


class BoundedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """The records of one fetch of one partition. Differs from its parent in what it does with a batch that fails."""

    _records: Any
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        batches = self._records = _Batches(self._records)
        while True:
            try:
                yield from super()._unpack_records()  # after a failure it goes on with the next batch
                return
            except Exception as error:  # each codec raises kinds of its own; whichever it is, it would come again
                if batches.current is None or str(error.args[0] if error.args else "").startswith(DAMAGED):
                    raise
                first, last = self.next_fetch_offset, batches.current.next_offset - 1
                expands = isinstance(error, codecs.ExpansionError)
            if first <= last:
                self.next_fetch_offset = last + 1
                yield _skipped(self._tp, first, last, expands=expands)


def _skipped(place: Any, first: int, last: int, *, expands: bool) -> ConsumerRecord:
    """Counts as FETCHED_BYTES: to find out how long it is may have taken as long as to unpack it."""
    value = SkippedBatch.of(first, last, expands=expands)
    return ConsumerRecord(place.topic, place.partition, last, -1, 0, None, value, None, -1, FETCHED_BYTES, ())


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]
    """Returns FETCHED_BYTES at a time; its parent only knows a number of records."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[ConsumerRecord]:
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        records: list[ConsumerRecord] = []
        left = FETCHED_BYTES
        for record in self._partition_records:
            records.append(record)
            left -= record.serialized_value_size + record.serialized_key_size
            if left <= 0 or len(records) == max_records:
                self._update_position()
                return records
        self._update_position()
        self._partition_records = None
        return records


def install(batch_bytes_max: int) -> None:
    """Put ours in the place of aiokafka's, for every consumer of this process."""
    codecs.install(batch_bytes_max)
    fetcher.PartitionRecords = BoundedRecords
    fetcher.FetchResult = BoundedResult
