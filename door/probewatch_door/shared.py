"""Counting for several processes, over Redis or another storage of the `limits` library (extra `redis`)."""

import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string


class LimitsCounter:
    """A `SharedCounter` with moving windows.

    storage : of `limits.aio`, and one that knows moving windows; or its address, as in "async+redis://redis:6379".

    While the storage is unreachable nothing is limited.
    """

    def __init__(self, storage: Storage | str) -> None:
        self._limiter = MovingWindowRateLimiter(storage_from_string(storage) if isinstance(storage, str) else storage)

    async def hit(self, key: tuple[str, ...], rate: int) -> float | None:
        item = RateLimitItemPerMinute(rate)
        try:
            if await self._limiter.hit(item, *key):
                return None
            window = await self._limiter.get_window_stats(item, *key)
        except StorageError:
            return None
        return window.reset_time - time.time()
