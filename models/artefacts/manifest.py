"""Signed artefact folders: a manifest with the hash of every file, and a signature over the manifest."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from models import private
from models.artefacts.signing import SIGNATURE_FILE, SignatureError, fingerprint, public_key, sign, signer
from models.hashes import short_hash

MANIFEST = "artefacts.json"
SECRETS_FOLDER = "secrets"
OWN_KEY = Path(SECRETS_FOLDER) / "signing_key.pub"
"""Public key of a self-signed folder: it detects alterations by those who cannot write there."""


class FileState(NamedTuple):
    """state : "as signed", "altered" or "missing"."""

    name: str
    state: str


class Inspection(NamedTuple):
    """manifest : {} if unreadable. signer : public key of a valid signature. trusted : whether that key is trusted.

    faults : what is wrong and how to fix it, the gravest first; none if the folder may be used.
    """

    manifest: Mapping[str, Any]
    hash: str
    signer: bytes | None
    trusted: bool
    files: tuple[FileState, ...]
    faults: tuple[str, ...]


def seal(path: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any], private_key: bytes) -> str:
    """Write files, the manifest with their hashes and its signature; the manifest's hash, 16 hex digits."""
    private.folder(path)
    for name, content in files.items():
        private.write(path / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    text = (json.dumps({**manifest, "files": hashes}, indent=1, sort_keys=True) + "\n").encode()
    private.write(path / MANIFEST, text)
    private.write(path / SIGNATURE_FILE, sign(private_key, text))
    return manifest_hash(text)


def manifest_hash(text: bytes) -> str:
    return short_hash(text)


def inspect(path: Path, schema: str, trusted: Collection[bytes] = ()) -> Inspection:
    """Check the signature and the hashes of a folder.

    trusted : public keys; none to trust the folder's own, if it has one. Raises OSError if there is no manifest.
    """
    text = (path / MANIFEST).read_bytes()
    try:
        manifest = json.loads(text)
        found, names = manifest["schema"], manifest.get("files", {})
        states = tuple(FileState(name, _state(path / Path(name).name, digest)) for name, digest in names.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Inspection({}, "", None, False, (), (f"{path / MANIFEST}: damaged; restore it or calibrate again",))
    if found != schema:
        return Inspection(
            manifest, "", None, False, (), (f"{path}: layout {found}, this version reads {schema}; calibrate again",)
        )
    key, faults = _signer(path, text)
    known = trusted or own_keys(path)
    if key is not None and key not in known:
        faults.append(_foreign(path, key, bool(trusted)))
    faults += [
        f"{path / one.name}: {one.state} since it was signed; restore it or calibrate again"
        for one in states
        if one.state != "as signed"
    ]
    return Inspection(manifest, manifest_hash(text), key, key in known, states, tuple(faults))


def own_keys(path: Path) -> list[bytes]:
    """The folder's own public key, if it is there."""
    try:
        return [bytes.fromhex((path / OWN_KEY).read_text(encoding="ascii"))]
    except (OSError, ValueError):
        return []


def write_own_key(path: Path, private_key: bytes) -> None:
    """Write the public half of the private key in `path`/secrets next to it."""
    private.write(path / OWN_KEY, public_key(private_key).hex().encode() + b"\n")


def _signer(path: Path, text: bytes) -> tuple[bytes | None, list[str]]:
    try:
        return signer((path / SIGNATURE_FILE).read_bytes(), text), []
    except OSError:
        return None, [f"{path}: not signed ({SIGNATURE_FILE} is missing); restore it or calibrate again"]
    except SignatureError as error:
        return None, [f"{path}: altered since it was signed: {error}; restore it or calibrate again"]


def _foreign(path: Path, key: bytes, configured: bool) -> str:
    who = f"{path}: signed by {fingerprint(key)}, a key that is not trusted here"
    whose = "secrets.public_keys names others" if configured else f"there is no {OWN_KEY} of that key either"
    return f"{who} ({whose}); if you know the signer, add {key.hex()} to secrets.public_keys, else calibrate again"


def _state(file: Path, digest: str) -> str:
    try:
        return "as signed" if hashlib.sha256(file.read_bytes()).hexdigest() == digest else "altered"
    except OSError:
        return "missing"
