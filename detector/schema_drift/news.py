"""What has become news in a space, as a frame of `requests`."""

from typing import Annotated

import msgspec

from detector.frame import ResultFrame

FOLD = "schema_drift"

_Bits = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class News(msgspec.Struct, frozen=True):
    """Bits of `odd`, of `offgrid` and of `flags` that are no evidence any more.

    space : as in row frames. In force until the space's artefacts are replaced; what is news stays news.
    """

    space: str
    odd: _Bits = 0
    offgrid: _Bits = 0
    flags: _Bits = 0

    @property
    def masks(self) -> tuple[int, int, int]:
        return self.odd, self.offgrid, self.flags


def frame_of(news: News, until_ms: int) -> ResultFrame:
    return ResultFrame(-1, -1, FOLD, news.space, until_ms, msgspec.json.encode(news))


def news_of(frame: ResultFrame) -> News | None:
    """None for results of other folds, and for what is no news."""
    if frame.fold != FOLD:
        return None
    try:
        return msgspec.json.decode(frame.body, type=News)
    except (msgspec.MsgspecError, ValueError):
        return None
