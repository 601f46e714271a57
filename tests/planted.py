"""Secrets planted for a test, and every form in which one could show up."""

import base64
import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from urllib.parse import quote

LOGGERS = ("", "aiokafka", "asyncio", "faust", "mode", "streams", "urllib3", "hvac", "kafka")


def forms(secret: bytes) -> set[bytes]:
    """As it is, escaped as Python shows bytes, in hexadecimal, in base64 at any alignment, quoted for an address."""
    found = {secret, repr(secret)[2:-1].encode(), secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        # Within a longer text the characters at the edges also depend on the neighbours; the middle does not.
        middle = base64.b64encode(b"\0" * shift + secret)[4 if shift else 0 : -4]
        found |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return found | {quote(secret).encode()}


def leaks(said: bytes, secrets: Mapping[str, bytes]) -> list[str]:
    """Names of the secrets that stand in it, with their surroundings."""
    return [
        f"{name}: …{said[max(0, at - 60) : at]!r}"
        for name, secret in secrets.items()
        for form in forms(secret)
        if (at := said.find(form)) >= 0
    ]


@contextlib.contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """All that any library logs at debug level, tracebacks too."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    before = {name: logging.getLogger(name).level for name in (*LOGGERS, "numba")}
    logging.getLogger("numba").setLevel(logging.WARNING)  # it would tell every instruction that it compiles
    logging.getLogger().addHandler(handler)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
