"""The secrets: the pseudonym key (who a client is), the projection seed (how inputs are hidden), the signing key.

They are separate: the pseudonym key recognises clients, the seed compares inputs, the signing key makes artefacts. The
service needs the first two, `calibrate` all. Each is 32 bytes, written as 64 hexadecimal digits. They are never logged
and never part of an error.
"""

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from models import private
from models.artefacts import manifest
from models.artefacts.signing import public_key
from models.errors import UserError
from streams.config.config import PREFIX, Config, load_config
from streams.secrets.vault import VaultError, read

SECRET_BYTES = 32
FOLDER = manifest.SECRETS_FOLDER
NAMES = ("pseudonym_key", "projection_seed")
SIGNING_KEY = "signing_key"
PREVIOUS_KEY = "previous_pseudonym_key"
SASL_PASSWORD = "sasl_password"


class SecretsError(UserError, ValueError):
    """A secret is missing or malformed. Says which and how to give it; never what it was."""


class Secrets(NamedTuple):
    """pseudonym_key, projection_seed : 32 bytes each. key_id : first part of every pseudonym.

    previous : (key, key_id) before, while keys rotate.
    """

    pseudonym_key: bytes
    key_id: str
    projection_seed: bytes
    previous: tuple[bytes, str] | None = None

    def __repr__(self) -> str:
        return f"Secrets(key_id={self.key_id!r}, …)"


def load_settings(file: Path | None = None) -> Config:
    """The configuration, with the SASL password from Vault if need be. Raises ConfigError, SecretsError."""
    config = load_config(file)
    if not config.kafka.lacks_password:
        return config
    password = _from_vault(config, SASL_PASSWORD)
    if password is None:
        raise SecretsError(f"{SASL_PASSWORD}: not set; give kafka.sasl_password_file, or put it into Vault")
    kafka = config.kafka.model_copy(update={SASL_PASSWORD: SecretStr(password)})
    return config.model_copy(update={"kafka": kafka})


def load_secrets(config: Config, offline: Path | None = None) -> Secrets:
    """Both secrets from environment, configuration, secrets folder, Vault, or `offline`/secrets, in this order.

    offline : folder that `calibrate` filled; only `calibrate` and `replay` give one. Raises SecretsError.
    """
    key, seed = (_load(config, name, offline) for name in NAMES)
    former = config.secrets.previous_key_id
    previous = None if former is None else (_load(config, PREVIOUS_KEY, offline), former)
    if previous is not None and previous[0] == key:
        raise SecretsError(f"{PREVIOUS_KEY}: the same as pseudonym_key; a key has one id")
    return Secrets(key, config.secrets.key_id, seed, previous)


def load_signing_key(config: Config, offline: Path) -> bytes:
    """The key that `calibrate` signs with, from where secrets come from; made in `offline`/secrets if nowhere else.

    Raises SecretsError.
    """
    configured = _configured_signing_key(config)
    if configured is not None:
        return configured
    create_secrets(offline, (SIGNING_KEY,))
    key = _load(config, SIGNING_KEY, offline)
    manifest.write_own_key(offline, key)
    return key


def trusted_keys(config: Config) -> tuple[bytes, ...]:
    """Public keys whose artefacts may be used: those configured, else that of a configured signing key.

    None: each folder's own. Raises SecretsError.
    """
    if config.secrets.public_keys:
        return tuple(bytes.fromhex(key) for key in config.secrets.public_keys)
    own = _configured_signing_key(config)
    return () if own is None else (public_key(own),)


def read_public_key(file: Path) -> bytes:
    """Raises SecretsError."""
    try:
        return _parse(file.read_text(encoding="ascii", errors="replace"), str(file))
    except OSError as error:
        raise SecretsError(f"{file}: {error.strerror}") from error


def _configured_signing_key(config: Config) -> bytes | None:
    try:
        return _load(config, SIGNING_KEY, None)
    except SecretsError as error:
        if "not set" in str(error):
            return None
        raise


def create_secrets(folder: Path, names: Sequence[str] = NAMES) -> list[Path]:
    """Make the secrets that `folder`/secrets lacks, readable by their owner only. Returns the files made."""
    target = folder / FOLDER
    private.folder(target)
    made = []
    for name in names:
        path = target / name
        if path.exists():
            continue
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        made.append(path)
    return made


def readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def secret_files(config: Config) -> list[Path]:
    """The files that hold secrets of ours, for `doctor`."""
    kafka, vault = config.kafka, config.secrets.vault
    named = (kafka.sasl_password_file, kafka.ssl_keyfile, vault.token_file, vault.secret_id_file)
    paths = [path for name in (*NAMES, PREVIOUS_KEY, SIGNING_KEY) for path in _paths(config, name)]
    return [path for path in (*paths, *named) if path is not None and path.is_file()]


def _load(config: Config, name: str, offline: Path | None) -> bytes:
    variable = PREFIX + name.upper()
    if text := os.environ.get(variable):
        return _parse(text, variable)
    configured = getattr(config.secrets, name)
    if configured is not None:
        return _parse(configured.get_secret_value(), f"secrets.{name}")
    for path in _paths(config, name):
        if (text := _read(path, named=path in _named_paths(config, name), name=name)) is not None:
            return _parse(text, str(path))
    if (text := _from_vault(config, name)) is not None:
        return _parse(text, f"{config.secrets.vault.address}: {name}")
    if offline is not None and (text := _read(offline / FOLDER / name)) is not None:
        return _parse(text, str(offline / FOLDER / name))
    raise SecretsError(f"{name}: not set; give {variable} or {variable}_FILE, or fill [secrets] in the configuration")


def _read(path: Path, *, named: bool = False, name: str = "") -> str | None:
    """A file's text; None if there is none, unless the configuration names it."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if named:
            raise SecretsError(f"{path}: no such file, but it is named as the {name}") from None
        return None
    except OSError as error:
        raise SecretsError(f"{path}: {error.strerror}") from error


def _from_vault(config: Config, name: str) -> str | None:
    if config.secrets.vault.address is None:
        return None
    try:
        found = read(config.secrets.vault).get(name)
    except VaultError as error:
        raise SecretsError(str(error)) from None
    return None if found is None else found.get_secret_value()


def _named_paths(config: Config, name: str) -> list[Path]:
    from_environment = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
    configured = getattr(config.secrets, f"{name}_file")
    return [Path(path) for path in (from_environment, configured) if path]


def _paths(config: Config, name: str) -> list[Path]:
    folder = config.secrets.directory
    return _named_paths(config, name) + ([] if folder is None else [folder / name])


def _parse(text: str, place: str) -> bytes:
    try:
        value = bytes.fromhex(text.strip())
    except ValueError:
        value = b""
    if len(value) != SECRET_BYTES:
        raise SecretsError(f"{place}: expected {2 * SECRET_BYTES} hexadecimal digits; got something else (not shown)")
    return value
