"""`[input]`: log formats, limits of what is read, declared clients."""

import re
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from detector.settings import Section
from models.rows import CLASSES, TIME_MS_MAX

PSEUDONYM = re.compile(r"[a-z0-9]{1,16}-[a-z2-7]{26}")


class Input(Section):
    formats: dict[str, str] = Field(
        default_factory=dict,
        description='Log format of a raw topic, `gateway-logs = "native"`; a topic that is not named has the format'
        " `native`.",
    )
    earliest: AwareDatetime = Field(datetime(2000, 1, 1, tzinfo=UTC), description="Records before this are rejected.")
    latest: AwareDatetime = Field(datetime(2100, 1, 1, tzinfo=UTC), description="Records from this on are rejected.")
    max_record_bytes: int = Field(
        1_000_000, ge=1_000, le=100_000_000, description="Longest record that is read, bytes."
    )
    max_message_bytes: int = Field(
        8_000_000,
        ge=1_000,
        le=100_000_000,
        description="Longest message that is cut into records (arrays, NDJSON), bytes.",
    )
    max_batch_bytes: int = Field(
        67_108_864,
        ge=1_000_000,
        le=2**30,
        description="Longest batch of Kafka records when it is unpacked, bytes; longer ones are passed over.",
    )
    max_rows: int = Field(10_000, ge=1, le=1_000_000, description="Most records in one message.")
    incarnation: str = Field(
        "0", max_length=64, description="Change it when a raw topic was deleted and created again under its old name."
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
        if self.max_message_bytes < self.max_record_bytes:
            raise ValueError("max_message_bytes must be at least max_record_bytes")
        if self.latest_ms > TIME_MS_MAX:
            raise ValueError("latest must lie before the year 9000")
        if self.registry_file is None or self.registry:
            return self
        try:
            table = tomllib.loads(self.registry_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"registry_file {self.registry_file}: {error}") from error
        for name, client_class in table.items():
            if client_class not in CLASSES:
                raise ValueError(
                    f"registry_file {self.registry_file}: {name}: one of {', '.join(CLASSES)}; got {client_class!r}"
                )
        return self.model_copy(update={"registry": self._pseudonyms(table)})

    @property
    def earliest_ms(self) -> int:
        return int(self.earliest.timestamp()) * 1000

    @property
    def latest_ms(self) -> int:
        return int(self.latest.timestamp()) * 1000
