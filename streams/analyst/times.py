"""Times in arguments and output: RFC 3339, a date, or a span such as 24h."""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from detector.events.encode import rfc3339
from models.errors import UserError

SPAN = re.compile(r"(\d{1,6})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class TimeError(UserError, ValueError):
    """A time that cannot be read."""


def time_of(text: str, option: str, now: datetime, towards: Literal["past", "future"]) -> datetime:
    """A time with its zone, UTC if none is given. A span counts from `now`. Raises TimeError."""
    span = SPAN.fullmatch(text)
    try:
        if span is not None:
            length = timedelta(**{UNITS[span[2]]: int(span[1])})
            return now - length if towards == "past" else now + length
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise TimeError(f"{option}: expected a date, an RFC 3339 time or a span (90m, 24h, 7d); got {text!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def shown(moment: datetime | None) -> str:
    """RFC 3339, UTC, to the second; "" for None."""
    return "" if moment is None else rfc3339(moment, "seconds")
