"""What can be wrong with what an analyst asks for. Imports nothing, since every command may meet it."""

from models.errors import UserError


class DeskError(UserError, ValueError):
    """Says what, where, and what to do instead."""


class EventError(DeskError):
    """Bytes that are no event or no feedback of ours, or a place that holds none."""


class FeedbackError(DeskError):
    """What was said cannot be kept."""


class TimeError(DeskError):
    """A time that nobody can read."""
