"""`[topics]`: names, partitions, replication."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from detector.settings import Section, Word


class Topics(Section):
    raw: Annotated[tuple[Word, ...], NoDecode] = Field(
        ("gateway-logs",),
        min_length=1,
        description="Raw topics: gateways write them, `sketch` reads them. In the environment: `a,b`.",
    )
    requests: Word = Field("probewatch.requests.v1", description="Frames, keyed by client: `sketch` to `judge`.")
    judge_state: Word = Field("probewatch.judge-state.v1", description="Blocks of client state; compacted.")
    link_state: Word = Field("probewatch.link-state.v1", description="State of `link`, one record; compacted.")
    alerts: Word = Field("probewatch.alerts.v1", description="OCSF findings for the SOC.")
    throttle: Word = Field("probewatch.throttle.v1", description="Every decision, as a log.")
    throttle_state: Word = Field(
        "probewatch.throttle-state.v1", description="Decisions in force; compacted, read by doors."
    )
    drift: Word = Field("probewatch.drift.v1", description="Drift of models and clients, as records.")
    feedback: Word = Field("probewatch.feedback.v1", description="Labels and suppressions from analysts; compacted.")
    dlq: Word = Field("probewatch.requests.dlq", description="Records that could not be read, with the reason.")
    partitions: int = Field(12, ge=1, le=1024, description="Partitions of `requests`; cannot be changed later.")
    replication: int = Field(1, ge=1, le=15, description="Replication factor of the topics that `topics create` makes.")

    @field_validator("raw", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value
