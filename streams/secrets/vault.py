"""Secrets from Vault: one secret of the key-value engine, version 2, read once in a process (extra `vault`).

Errors name address, path and what Vault answered in a word; never a token, never a value. Redirects are not followed:
they would carry the token elsewhere.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from streams.config.secrets import Vault

TIMEOUT_S = 10
POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class VaultError(RuntimeError):
    """Vault cannot be read. Says where and why."""


@lru_cache(maxsize=4)
def read(settings: Vault) -> Mapping[str, SecretStr]:
    """The secret's keys and values. Raises VaultError."""
    try:
        import hvac
        from hvac import exceptions as refusals
        from requests import RequestException
        from requests.exceptions import SSLError
    except ImportError:
        raise VaultError('the Vault client is not installed; in a clone: pip install ./door ".[vault]"') from None
    place = f"{settings.address}: {settings.mount}/data/{settings.path}"
    answers: tuple[tuple[type[Exception], str], ...] = (
        (refusals.Forbidden, "permission denied: is the token valid, and does its policy allow `read` here?"),
        (refusals.InvalidPath, "nothing there: are mount and path right, and is the engine version 2?"),
        (refusals.InvalidRequest, "the login was refused"),
        (refusals.VaultNotInitialized, "not initialized"),
        (refusals.VaultDown, "sealed, or down for maintenance"),
        (SSLError, "its certificate is not trusted (secrets.vault.ca_file)"),
        (RequestException, "cannot be reached"),
    )
    try:
        return _fields(_secret(hvac, settings), place)
    except (refusals.VaultError, RequestException) as error:
        words = next((text for kind, text in answers if isinstance(error, kind)), type(error).__name__)
        raise VaultError(f"{place}: {words}") from None


def _secret(hvac: Any, settings: Vault) -> Any:
    client = hvac.Client(
        url=settings.address,
        namespace=settings.namespace,
        verify=str(settings.ca_file) if settings.ca_file else True,
        timeout=TIMEOUT_S,
        allow_redirects=False,
    )
    client.token = None  # hvac would take one from the environment or from the home folder
    if settings.role_id is not None:
        client.auth.approle.login(settings.role_id, _text(settings.secret_id_file))
    elif settings.kubernetes_role is not None:
        client.auth.kubernetes.login(settings.kubernetes_role, _text(POD_TOKEN))
    else:
        client.token = settings.token.get_secret_value() if settings.token else _text(settings.token_file)
    return client.secrets.kv.v2.read_secret_version(
        settings.path, mount_point=settings.mount, raise_on_deleted_version=True
    )


def _text(file: Path | None) -> str:
    assert file is not None
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise VaultError(f"{file}: {error.strerror}") from None


def _fields(answer: Any, place: str) -> Mapping[str, SecretStr]:
    try:
        return {name: SecretStr(value) for name, value in answer["data"]["data"].items() if isinstance(value, str)}
    except (KeyError, TypeError, AttributeError):
        raise VaultError(f"{place}: no answer of a key-value engine, version 2") from None
