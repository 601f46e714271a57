"""One typed configuration: a TOML file, and the environment on top (`PROBEWATCH_KAFKA__GROUP` sets `kafka.group`).

Every error names the key, what it may be and what it got; unknown keys are errors. `Config.hash` covers only what can
move an event, so that moving a broker or a folder never looks like another detection configuration.
"""

import hashlib
import json
import os
import re
import ssl
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from detector.config_keys import ConfigError, absolute_paths, explain, sections
from detector.config_secrets import SecretSources, Section
from models.rows import CLASSES, TIME_MS_MAX

PREFIX = "PROBEWATCH_"
DEFAULT_FILE = Path("probewatch.toml")
PSEUDONYM = re.compile(r"[a-z0-9]{1,16}-[a-z2-7]{26}")

Word = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]


class Kafka(Section):
    bootstrap: str = Field("127.0.0.1:9092", min_length=3, description="Brokers to start from, `host:port,host:port`.")
    group: Word = Field("probewatch", description="Prefix of the consumer groups; one per installation.")
    session_timeout_s: float = Field(
        30.0, ge=1, le=1_800, description="A worker not heard of for this long loses its partitions, s."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="Used by the two SASL protocols."
    )
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password; better given as a file.")
    sasl_password_file: Path | None = Field(None, description="File that holds the SASL password.")
    ssl_cafile: Path | None = Field(None, description="Authorities that brokers' certificates must come from.")
    ssl_certfile: Path | None = Field(None, description="This client's certificate, for mutual TLS.")
    ssl_keyfile: Path | None = Field(None, description="The certificate's private key.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL_") and not self.sasl_username:
            raise ValueError("this security_protocol needs sasl_username")
        self.password()
        return self

    @property
    def lacks_password(self) -> bool:
        return self.security_protocol.startswith("SASL_") and not self.password()

    def password(self) -> str | None:
        if self.sasl_password is not None:
            return self.sasl_password.get_secret_value()
        if self.sasl_password_file is None:
            return None
        try:
            return self.sasl_password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"sasl_password_file {self.sasl_password_file}: {error.strerror}") from error

    def client(self) -> dict[str, Any]:
        """Security arguments of any aiokafka client (everything but `bootstrap_servers`)."""
        arguments: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.security_protocol.startswith("SASL_"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.password(),
            }
        if self.security_protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.ssl_cafile)
            if self.ssl_certfile is not None:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
            arguments["ssl_context"] = context
        return arguments


class Topics(Section):
    raw: Annotated[tuple[Word, ...], NoDecode] = Field(
        ("gateway-logs",),
        min_length=1,
        description="What gateways write and `sketch` reads. In the environment: `a,b`.",
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
    dlq: Word = Field("probewatch.requests.dlq", description="Records that could not be read, with the reason.")
    partitions: int = Field(12, ge=1, le=1024, description="Partitions of `requests`; fixed for life.")
    replication: int = Field(1, ge=1, le=15, description="Copies of every topic that `topics create` makes.")

    @field_validator("raw", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


class Input(Section):
    earliest: AwareDatetime = Field(datetime(2000, 1, 1, tzinfo=UTC), description="Records before this are rejected.")
    latest: AwareDatetime = Field(datetime(2100, 1, 1, tzinfo=UTC), description="Records from this on are rejected.")
    max_record_bytes: int = Field(
        1_000_000, ge=1_000, le=100_000_000, description="Longest record that is read, bytes."
    )
    max_rows: int = Field(10_000, ge=1, le=1_000_000, description="Most inputs in one record.")
    incarnation: str = Field(
        "0", max_length=64, description="Change it when a raw topic is created anew under its old name."
    )
    registry_file: Path | None = Field(None, description='TOML file of declared clients: `k1-… = "broker"`.')
    registry: dict[str, Literal["consumer", "broker", "system"]] = Field(
        default_factory=dict, description="Declared classes by pseudonym (`probewatch client-id NAME` computes it)."
    )

    @field_validator("earliest", "latest", mode="before")
    @classmethod
    def _midnight(cls, value: object) -> object:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            value = date.fromisoformat(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            return datetime.combine(value, time(), UTC)
        return value

    @field_validator("registry")
    @classmethod
    def _pseudonyms(cls, value: dict[str, str]) -> dict[str, str]:
        wrong = next((name for name in value if not PSEUDONYM.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError("keys must be pseudonyms, k1- and 26 letters; `probewatch client-id NAME` computes one")
        return value

    @model_validator(mode="after")
    def _read_registry(self) -> Self:
        if self.earliest >= self.latest:
            raise ValueError("earliest must lie before latest")
        if self.latest_ms > TIME_MS_MAX:
            raise ValueError("latest must lie before the year 9000")
        if self.registry_file is None or self.registry:
            return self
        try:
            table = tomllib.loads(self.registry_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"registry_file {self.registry_file}: {error}") from error
        for name, klass in table.items():
            if klass not in CLASSES:
                raise ValueError(
                    f"registry_file {self.registry_file}: {name}: one of {', '.join(CLASSES)}; got {klass!r}"
                )
        return self.model_copy(update={"registry": self._pseudonyms(table)})

    @property
    def earliest_ms(self) -> int:
        return int(self.earliest.timestamp()) * 1000

    @property
    def latest_ms(self) -> int:
        return int(self.latest.timestamp()) * 1000


class Model(Section):
    decision_threshold: float | None = Field(
        None,
        ge=-1e9,
        le=1e9,
        allow_inf_nan=False,
        description="Score at which the answer turns; overrides the artefact's.",
    )


class Rung(Section):
    action: Literal["observe", "delay", "cap", "challenge", "block"] = Field("observe", description="What doors do.")
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


RUNGS: dict[str, dict[str, Any]] = {
    "watch": {"action": "observe", "duration_s": 3_600},
    "soft": {"action": "cap", "requests_per_minute": 10, "duration_s": 900},
    "hard": {"action": "cap", "requests_per_minute": 1, "duration_s": 3_600},
    "block": {"action": "block", "duration_s": 86_400},
}


class Policy(Section):
    mode: Literal["shadow", "enforce"] = Field(
        "shadow", description="`shadow` writes decisions that doors do not act on."
    )
    watch: Rung = Field(Rung(**RUNGS["watch"]), description="Level 1, budget 1e-2 per benign client-day.")
    soft: Rung = Field(Rung(**RUNGS["soft"]), description="Level 2, budget 1e-3.")
    hard: Rung = Field(Rung(**RUNGS["hard"]), description="Level 3, budget 1e-4; also an alert.")
    block: Rung = Field(Rung(**RUNGS["block"]), description="Level 4, budget 1e-5; a proposal for a person.")
    decision_delay_ms_max: int = Field(
        0,
        ge=0,
        le=3_600_000,
        description="Decisions take effect after a keyed delay up to this, ms: it hides which row was one too many.",
    )
    shadow_detectors: Annotated[tuple[Word, ...], NoDecode] = Field(
        (), description="Detectors whose decisions stay in shadow. In the environment: `a,b`."
    )

    @field_validator("watch", "soft", "hard", "block", mode="before")
    @classmethod
    def _onto_default(cls, value: object, info: Any) -> object:
        """A rung given in part keeps the rest of its own default, not of some general rung."""
        return {**RUNGS[info.field_name], **value} if isinstance(value, dict) else value

    @field_validator("shadow_detectors", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


class State(Section):
    blocks: int = Field(64, ge=1, le=4_096, description="Blocks a partition; fixed for life.")
    block_bytes: int = Field(
        4 * 2**20, ge=64 * 2**10, le=2**30, description="Memory for one block's clients, bytes; the capacity."
    )
    round_s: float = Field(60.0, ge=0.1, le=3_600, description="Every block is written at least this often, s.")


class Drift(Section):
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


class Web(Section):
    host: str = Field("127.0.0.1", min_length=1, description="Address of metrics, health and readiness.")
    port: int = Field(6066, ge=0, le=65_535, description="Their port; 0 takes a free one.")


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
    drift: Drift = Drift()
    secrets: SecretSources = SecretSources()
    web: Web = Web()

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

    @property
    def hash(self) -> str:
        """16 hex digits over what moves events (models, policy, state, drift, input): no addresses, paths, secrets."""
        moves = self.model_dump(
            mode="json",
            include={"models", "policy", "state", "drift", "input"},
            exclude={"state": {"round_s"}, "input": {"registry_file"}},
        )
        text = json.dumps(moves, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    """A mistyped section would pass unseen. One underscore is fine: Kubernetes itself sets PROBEWATCH_SERVICE_HOST."""
    known = {name.upper() for name in sections(Config)}
    for name in sorted(os.environ):
        head, separator, _ = name.removeprefix(PREFIX).partition("__")
        if name.startswith(PREFIX) and separator and head not in known:
            raise ConfigError(f"{name}: no such section; the sections are {', '.join(sorted(known))}")
