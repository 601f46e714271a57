"""`[secrets]`: where secrets come from. `streams/secrets` reads them; they are never shown."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from detector.settings import Section
from streams.config.keys import comma_separated


class Vault(Section):
    address: str | None = Field(
        None, description="Vault, `https://host:8200`: asked for what environment, files and folder do not give."
    )
    mount: str = Field("secret", min_length=1, description="Mount of its key-value engine, version 2.")
    path: str = Field(
        "probewatch", min_length=1, description="The secret whose keys are `pseudonym_key`, `sasl_password` and so on."
    )
    namespace: str | None = Field(None, description="Vault namespace, if there is one.")
    token: SecretStr | None = Field(None, description="Token; a file is safer.")
    token_file: Path | None = Field(None, description="File that holds the token.")
    role_id: str | None = Field(None, description="AppRole to log in with, instead of a token.")
    secret_id_file: Path | None = Field(None, description="File that holds the AppRole's secret id.")
    kubernetes_role: str | None = Field(None, description="Role to log in with as this pod, instead of a token.")
    ca_file: Path | None = Field(None, description="CA certificates of Vault, PEM.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.address is None:
            return self
        parts = urlsplit(self.address)
        loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not (parts.hostname and parts.username is None and (parts.scheme == "https" or loopback)):
            raise ValueError("address must be https://host:port; without TLS the token would travel in the clear")
        ways = [self.token or self.token_file, self.role_id, self.kubernetes_role]
        if sum(way is not None for way in ways) != 1 or (self.role_id is None) != (self.secret_id_file is None):
            raise ValueError("give one of token (or token_file), role_id with secret_id_file, kubernetes_role")
        return self


class SecretSources(Section):
    directory: Path | None = Field(None, description="Folder with files `pseudonym_key`, `projection_seed`.")
    key_id: str = Field(
        "k1", pattern=r"^[a-z0-9]{1,16}$", description="Id of the pseudonym key, first part of a pseudonym."
    )
    pseudonym_key: SecretStr | None = Field(None, description="64 hexadecimal digits; also `PROBEWATCH_PSEUDONYM_KEY`.")
    pseudonym_key_file: Path | None = Field(
        None, description="File that holds it; also `PROBEWATCH_PSEUDONYM_KEY_FILE`."
    )
    previous_key_id: str | None = Field(
        None,
        pattern=r"^[a-z0-9]{1,16}$",
        description="Id of the previous pseudonym key while keys rotate; its pseudonyms still hold.",
    )
    previous_pseudonym_key: SecretStr | None = Field(
        None, description="64 hexadecimal digits; also `PROBEWATCH_PREVIOUS_PSEUDONYM_KEY`."
    )
    previous_pseudonym_key_file: Path | None = Field(
        None, description="File that holds it; also `PROBEWATCH_PREVIOUS_PSEUDONYM_KEY_FILE`."
    )
    projection_seed: SecretStr | None = Field(
        None, description="64 hexadecimal digits; also `PROBEWATCH_PROJECTION_SEED`."
    )
    projection_seed_file: Path | None = Field(
        None, description="File that holds it; also `PROBEWATCH_PROJECTION_SEED_FILE`."
    )
    signing_key: SecretStr | None = Field(
        None, description="64 hexadecimal digits, Ed25519; only `calibrate` needs it. Also `PROBEWATCH_SIGNING_KEY`."
    )
    signing_key_file: Path | None = Field(None, description="File that holds it; also `PROBEWATCH_SIGNING_KEY_FILE`.")
    public_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Keys whose artefacts are trusted, 64 hexadecimal digits each; none: the artefacts' own folder's."
        " In the environment: `a,b`.",
    )

    vault: Vault = Vault()

    @model_validator(mode="after")
    def _rotating(self) -> Self:
        if self.previous_key_id == self.key_id:
            raise ValueError("previous_key_id must differ from key_id: another key gives other pseudonyms")
        return self

    @field_validator("public_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return comma_separated(value)

    @field_validator("public_keys")
    @classmethod
    def _hexadecimal(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[0-9a-f]{64}", key) for key in value):
            raise ValueError("each must be 64 hexadecimal digits; `probewatch verify DIR` prints the signer's")
        return value
