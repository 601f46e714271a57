"""The settings that decisions depend on: policy, state, drift, and what an operator says of a model."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from models.pseudonym import client_of
from probewatch_door.record import PolicyAction

Word = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]

Told = Literal["number", "category", "leave out"]
"""What people may say of a model's feature."""


class Section(BaseModel):
    """A table of the configuration: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Model(Section):
    decision_threshold: float | None = Field(
        None,
        ge=-1e9,
        le=1e9,
        allow_inf_nan=False,
        description="Score at which the answer turns; overrides the artefact's.",
    )
    aliases: tuple[Annotated[str, Field(min_length=1, max_length=512)], ...] = Field(
        (), description="Other names under which logs call the model. Case never matters."
    )
    leave_out: tuple[str, ...] = Field(
        (), description="Features that are no input of the model, or say nothing: `calibrate` does not fit them."
    )
    fields: dict[str, Told] = Field(
        default_factory=dict,
        description="What `calibrate` takes features for, by name, where it would take them for something else.",
    )

    @property
    def told(self) -> dict[str, Told]:
        """What is said of fields, by name."""
        return dict(self.fields) | dict.fromkeys(self.leave_out, "leave out")


class LevelSettings(Section):
    action: PolicyAction = Field(
        "observe",
        description="What doors do. `block` only proposes one: until a person confirms it (`probewatch block`), the"
        " limits of `policy.hard` apply.",
    )
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000, description="Allowed by `cap`.")
    delay_ms: int | None = Field(None, ge=1, le=60_000, description="Added by `delay`, ms.")
    duration_s: int = Field(
        3_600, ge=1, le=30 * 86_400, description="Until the decision expires, s; doubles on repetition."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.action == "cap" and self.requests_per_minute is None:
            raise ValueError("action `cap` needs requests_per_minute")
        if self.action == "delay" and self.delay_ms is None:
            raise ValueError("action `delay` needs delay_ms")
        return self


LEVEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "watch": {"action": "observe", "duration_s": 3_600},
    "soft": {"action": "cap", "requests_per_minute": 10, "duration_s": 900},
    "hard": {"action": "cap", "requests_per_minute": 1, "duration_s": 3_600},
    "block": {"action": "block", "duration_s": 86_400},
}


class BreakerSettings(Section):
    enabled: bool = Field(
        True,
        description="Whether `enforce` falls back to shadow for a model whose certificate no longer holds"
        " ([when it opens](operations.md#the-breaker-opened)).",
    )
    factor: float = Field(
        5.0,
        ge=1,
        le=1_000,
        allow_inf_nan=False,
        description="It opens when a level was decided on for more clients within an hour than this many times the"
        " promised share of a day's clients ...",
    )
    clients: int = Field(10, ge=1, le=8_192, description="... and for more clients than this.")


class Policy(Section):
    mode: Literal["shadow", "enforce"] = Field(
        "shadow", description="`shadow` writes decisions that doors do not act on."
    )
    watch: LevelSettings = Field(
        LevelSettings(**LEVEL_DEFAULTS["watch"]), description="Level 1, budget 1e-2 per benign client-day."
    )
    soft: LevelSettings = Field(LevelSettings(**LEVEL_DEFAULTS["soft"]), description="Level 2, budget 1e-3.")
    hard: LevelSettings = Field(
        LevelSettings(**LEVEL_DEFAULTS["hard"]), description="Level 3, budget 1e-4; also an alert."
    )
    block: LevelSettings = Field(
        LevelSettings(**LEVEL_DEFAULTS["block"]), description="Level 4, budget 1e-5; a proposal for a person."
    )
    decision_delay_ms_max: int = Field(
        0,
        ge=0,
        le=3_600_000,
        description="Decisions take effect after a keyed delay up to this, ms: it hides which row was one too many.",
    )
    shadow_detectors: Annotated[tuple[Word, ...], NoDecode] = Field(
        (), description="Detectors whose decisions stay in shadow. In the environment: `a,b`."
    )
    breaker: BreakerSettings = Field(BreakerSettings(), description="What bounds enforcement when all goes wrong.")

    shared_clients: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Pseudonyms of ids that many people share (a default key): never decided on. `probewatch client-id"
        " NAME` computes one. In the environment: `a,b`.",
    )

    @field_validator("watch", "soft", "hard", "block", mode="before")
    @classmethod
    def _onto_default(cls, value: object, info: Any) -> object:
        """A level given in part keeps the rest of its own default."""
        return {**LEVEL_DEFAULTS[info.field_name], **value} if isinstance(value, dict) else value

    @field_validator("shared_clients")
    @classmethod
    def _pseudonyms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            client_of(name)
        return value

    @field_validator("shadow_detectors", "shared_clients", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


class State(Section):
    blocks: int = Field(64, ge=1, le=4_096, description="Blocks a partition; fixed for life.")
    block_bytes: int = Field(
        4 * 2**20, ge=64 * 2**10, le=2**30, description="Memory for one block's clients, bytes; the capacity."
    )
    round_s: float = Field(60.0, ge=0.1, le=3_600, description="Every block is written at least this often, s.")


class DriftSettings(Section):
    window_s: int = Field(3_600, ge=60, le=86_400, description="Event time that one figure of a model covers, s.")
    lateness_s: int = Field(
        300, ge=0, le=86_400, description="A window closes when event time has passed its end by this, s."
    )
    patience_s: int = Field(
        3_600, ge=0, le=604_800, description="Raw topics and partitions further behind than this are not waited for, s."
    )
    min_rows: int = Field(200, ge=1, le=1_000_000, description="Windows are joined until they hold as many rows.")
    baseline_windows: int = Field(72, ge=8, le=2_000, description="Figures from which `link` learns what is ordinary.")
    alert_windows: int = Field(6, ge=1, le=1_000, description="A drift that lasts this many figures more is an alert.")


class DetectionSettings(Protocol):
    """What the folds read of a configuration; `streams.config.Config` has it.

    hash : over all that moves events   request_partitions : of `requests`, whose windows drift closes together
    """

    @property
    def models(self) -> Mapping[str, Model]: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def state(self) -> State: ...

    @property
    def drift(self) -> DriftSettings: ...

    @property
    def request_partitions(self) -> int: ...

    @property
    def hash(self) -> str: ...
