"""OpenSSF model-signing signatures, for pipelines that require them; Probewatch itself does not use them."""

from importlib import import_module
from pathlib import Path
from typing import Any

from models.artefacts.manifest import SECRETS_FOLDER
from models.artefacts.store import ArtefactError

SIGNATURE = "model.sig"
IGNORED = (SIGNATURE, SECRETS_FOLDER, "checks")
MISSING = 'the package model-signing is not installed; in a clone: pip install ./door ".[openssf]"'


def sign(folder: Path, private_key: Path) -> Path:
    """Sign everything in a folder of artefacts. private_key : PEM, elliptic curve. Raises ArtefactError."""
    target = folder / SIGNATURE
    ignored = _ignoring()
    try:
        config = _module("signing").Config().use_elliptic_key_signer(private_key=private_key)
        config.set_hashing_config(ignored).sign(folder, target)
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError(f"{private_key}: cannot sign with it: {error}") from error
    return target


def verify(folder: Path, public_key: Path) -> str:
    """What is wrong with the signature; "" if it is valid. public_key : PEM. Raises ArtefactError."""
    ignored = _ignoring()
    try:
        config = _module("verifying").Config().use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(ignored).verify(folder, folder / SIGNATURE)
    except Exception as error:  # the library raises what its own dependencies raise
        return f"{folder / SIGNATURE}: {error or type(error).__name__}"
    return ""


def _ignoring() -> Any:
    """The signature covers everything except itself, secrets and checks."""
    return _module("hashing").Config().set_ignored_paths(paths=IGNORED)


def _module(name: str) -> Any:
    try:
        return import_module(f"model_signing.{name}")
    except ImportError:
        raise ArtefactError(MISSING) from None
