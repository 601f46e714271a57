"""What stands for a batch of Kafka records that was passed over. Needs no client library."""


class SkippedBatch(bytes):
    """The value of a record that stands for a batch, or the rest of one, that was not unpacked; says so in words.

    first, last : offsets that are passed over; the record has the last one. expands : whether it is too long when
    unpacked; else it cannot be unpacked.
    """

    first: int
    last: int
    expands: bool

    @classmethod
    def of(cls, first: int, last: int, *, expands: bool) -> "SkippedBatch":
        why = "is too long when unpacked (input.max_batch_bytes)" if expands else "cannot be unpacked"
        made = cls(f"offsets {first} to {last} were passed over: their batch {why}".encode())
        made.first, made.last, made.expands = first, last, expands
        return made
