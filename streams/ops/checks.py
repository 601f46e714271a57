"""What `doctor` says."""

from typing import Literal

import msgspec

State = Literal["ok", "warning", "fault"]


class Check(msgspec.Struct, frozen=True):
    """One check of the installation. finding : what it found. fix : what to do about it, empty for nothing."""

    check: str
    state: State
    finding: str
    fix: str
