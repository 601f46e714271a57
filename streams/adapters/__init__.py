"""One module for each log format: bytes and headers to requests or faults."""

from collections.abc import Callable, Sequence
from typing import Protocol

from streams.adapters import native
from streams.adapters.request import Request
from streams.adapters.scanner import Scanner
from streams.wire.rejects import Fault, Headers


class Adapter(Protocol):
    """decode_one : the usual message, as fast as can be; raises one of json_text.UNREADABLE for every other.
    scanner : reads many plain messages at once, None if there is none for the format.
    decode : any message, never raises. elements : the texts that `decode` read, one for each of its results.
    """

    @property
    def name(self) -> str: ...

    @property
    def scanner(self) -> Callable[[], Scanner] | None: ...

    def decode_one(self, value: bytes, /) -> Request: ...

    def decode(
        self, value: bytes, headers: Headers, features: frozenset[str] = ..., /
    ) -> Sequence[Request | Fault]: ...

    def elements(self, value: bytes, /) -> Sequence[bytes]: ...


REGISTRY: tuple[Adapter, ...] = (native,)
"""Every log format. A format is here, has fixtures in tests/adapters and a page in docs/formats."""
