"""One inference request: the result of every adapter."""

import math
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.encoders.embedding_reader import EmbeddingObject
from streams.wire.rejects import Fault

IDENTIFIER_CHARS = 512
LABEL_CHARS = 256
INT64_MAX = 2**63 - 1

Time = Annotated[datetime, Meta(tz=True)]
Identifier = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_CHARS)]
RequestId = Annotated[str, Meta(max_length=IDENTIFIER_CHARS)]
Label = Annotated[str, Meta(max_length=LABEL_CHARS)] | Annotated[int, Meta(ge=-(2**63), le=INT64_MAX)]
Embedding = list[float] | str | EmbeddingObject
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Output(Struct, gc=False):
    """The model's answer. scores : label to number."""

    label: Label | None = None
    score: float | None = None
    scores: dict[str, float] | None = None
    refused: bool | None = None


class Request(Struct, gc=False):
    """One row. Only what is read is declared: decoding skips the rest, prompts among it, without making objects.

    ts : with an offset, or seconds, milli-, micro- or nanoseconds since 1970. request_id : None and "" alike: the place
    of the record then stands for it. Numbers of `features` are floats (integers above 2**53 lose digits). embedding :
    numbers, base64 of little-endian float32, pgvector text, or an object.
    """

    ts: Time | float
    client_id: Identifier
    model: Identifier
    request_id: RequestId | None = None
    features: dict[str, float | str | bool | None] | None = None
    embedding: Embedding | None = None
    output: Output | None = None
    client_class: Literal["consumer", "broker", "system"] | None = None
    operation: str | None = None
    tokens_in: Count | None = None
    tokens_out: Count | None = None


UNKNOWN_TIME = -math.inf
UNKNOWN_MODEL = ""


class Salvaged(Request, gc=False):
    """A request of which something could not be read; those fields are absent, or `models.encoders.table_reader.Unread`
    among `features`.

    ts, model : UNKNOWN_TIME and UNKNOWN_MODEL if they could not be read. client_id : never unknown, but may be longer
    than a request's. unread : names of the fields, as in EXPECTED, or "record" for what lies outside of them. lost :
    why the request cannot be judged at all, and becomes a dead letter; None if it can.
    """

    unread: tuple[str, ...] = ()
    lost: Fault | None = None


EXPECTED = {
    "ts": "an RFC 3339 time with an offset, or a number of seconds since 1970",
    "request_id": f"a string of at most {IDENTIFIER_CHARS} characters",
    "client_id": f"a string of 1 to {IDENTIFIER_CHARS} characters, or a whole number",
    "model": f"a string of 1 to {IDENTIFIER_CHARS} characters",
    "features": "an object of numbers, strings, booleans and nulls",
    "embedding": "numbers, base64 of float32, pgvector text or an object with data",
    "embedding.data": "numbers or base64 of float32",
    "embedding.dim": "a whole number, 0 to 4294967295",
    "embedding.encoding": "a string",
    "embedding.dtype": "a string",
    "output": "an object",
    "output.label": f"a string of at most {LABEL_CHARS} characters or a 64-bit integer",
    "output.score": "a number",
    "output.scores": "an object of numbers",
    "output.refused": "true or false",
    "client_class": '"consumer", "broker" or "system"',
    "operation": "a string",
    "tokens_in": "a whole number, 0 to 4294967295",
    "tokens_out": "a whole number, 0 to 4294967295",
}
"""Each field's range in words. The keys are the only field names that a reject may contain."""
