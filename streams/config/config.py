"""One typed configuration: a TOML file, overridden by the environment (`PROBEWATCH_KAFKA__GROUP` sets `kafka.group`).

Every error names the key, its range and the value; unknown keys are errors. `Config.hash` covers only what can
move an event, so that moving a broker or a folder never looks like another detection configuration.
"""

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from detector.settings import DriftSettings, Model, Policy, Section, State
from models.hashes import short_hash
from streams.config.input import Input
from streams.config.kafka import Kafka
from streams.config.keys import ConfigError, absolute_paths, comma_separated, explain, sections
from streams.config.secrets import SecretSources
from streams.config.topics import Topics

PREFIX = "PROBEWATCH_"
DEFAULT_FILE = Path("probewatch.toml")


class Web(Section):
    host: str = Field("127.0.0.1", min_length=1, description="Address of the HTTP server (metrics, health, readiness).")
    port: int = Field(6066, ge=0, le=65_535, description="Port of the HTTP server; 0 takes a free one.")
    names: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="More names by which it may be asked, as in `probewatch.internal`; others get 421. `localhost`,"
        " `web.host` and the address that was reached always may. In the environment: `a,b`.",
    )

    @field_validator("names", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return comma_separated(value)


class Alerts(Section):
    wave_incidents_per_hour: int = Field(
        20, ge=1, le=1_000_000, description="More incidents of a model within an hour are shown as one wave."
    )


class Config(BaseSettings):
    """Everything that can be set. Immutable; `load_config` builds it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    artefacts: Path = Field(Path("artefacts"), description="Folder that `calibrate` wrote.")
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    input: Input = Input()
    models: dict[str, Model] = Field(default_factory=dict, description="Settings by model name.")
    policy: Policy = Policy()
    state: State = State()
    drift: DriftSettings = DriftSettings()
    secrets: SecretSources = SecretSources()
    web: Web = Web()
    alerts: Alerts = Alerts()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.kafka.lacks_password and self.secrets.vault.address is None:
            raise ValueError("kafka.sasl_password: not set; this security_protocol needs it, as text, file or in Vault")
        return self

    @model_validator(mode="after")
    def _formats_of_raw_topics(self) -> Self:
        other = next((topic for topic in self.input.formats if topic not in self.topics.raw), None)
        if other is not None:
            raise ValueError(
                f"input.formats: expected topics of topics.raw ({', '.join(self.topics.raw)}); got {other!r}"
            )
        return self

    @property
    def request_partitions(self) -> int:
        return self.topics.partitions

    @property
    def hash(self) -> str:
        """16 hex digits over what moves events (models, policy, state, drift, input): no addresses, paths, secrets.

        What `calibrate` alone reads is in the hash of the artefacts; `policy.breaker` acts in `enforce`. Without
        `input.formats` it is the hash that it was before this key existed.
        """
        moves = self.model_dump(
            mode="json",
            include={"models", "policy", "state", "drift", "input"},
            exclude={
                "models": {"__all__": {"leave_out", "fields"}},
                "policy": {"breaker"} if self.policy.mode == "shadow" else set(),
                "state": {"round_s"},
                "input": {"registry_file"} | ({"formats"} if not self.input.formats else set()),
            },
        )
        text = json.dumps(moves, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return short_hash(text.encode())


def load_config(path: Path | None = None) -> Config:
    """The configuration: `path`, else `$PROBEWATCH_CONFIG`, else ./probewatch.toml, else defaults; environment on top.

    Paths inside the file are relative to the file. Raises ConfigError with one line for each thing that is wrong.
    """
    named = path or (Path(os.environ["PROBEWATCH_CONFIG"]) if os.environ.get("PROBEWATCH_CONFIG") else None)
    file = named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    table: dict[str, Any] = {}
    if file is not None:
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    _refuse_unknown_variables()
    try:
        return Config(**absolute_paths(Config, table, (file or DEFAULT_FILE).resolve().parent))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(Config, fault) for fault in error.errors(include_url=False))) from error


def _refuse_unknown_variables() -> None:
    """A mistyped section would be ignored. One underscore is fine: Kubernetes itself sets PROBEWATCH_SERVICE_HOST."""
    known = {name.upper() for name in sections(Config)}
    for name in sorted(os.environ):
        head, separator, _ = name.removeprefix(PREFIX).partition("__")
        if name.startswith(PREFIX) and separator and head not in known:
            raise ConfigError(f"{name}: no such section; the sections are {', '.join(sorted(known))}")
