"""Ed25519 signatures (RFC 8032) of artefact manifests."""

import hashlib
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from models.hashes import short_hash

SIGNATURE_FILE = "signature.json"


class SignatureError(ValueError):
    """A signature that is unreadable or does not match its manifest."""


class Signature(msgspec.Struct, frozen=True):
    """The contents of signature.json. All but the schema are hexadecimal."""

    public_key: str
    manifest_sha256: str
    signature: str
    schema: Literal["probewatch.signature/1"] = "probewatch.signature/1"


def public_key(private: bytes) -> bytes:
    """32 bytes. private : 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def sign(private: bytes, manifest: bytes) -> bytes:
    """The text of signature.json for a manifest. The same key and manifest give the same bytes."""
    signature = Ed25519PrivateKey.from_private_bytes(private).sign(manifest)
    found = Signature(public_key(private).hex(), hashlib.sha256(manifest).hexdigest(), signature.hex())
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def signer(text: bytes, manifest: bytes) -> bytes:
    """The public key whose owner signed this manifest; the caller decides whether to trust it.

    Raises SignatureError if the signature is unreadable or of another manifest.
    """
    try:
        found = msgspec.json.decode(text, type=Signature)
        key, signature = bytes.fromhex(found.public_key), bytes.fromhex(found.signature)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, manifest)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SignatureError("the signature is unreadable") from error
    except InvalidSignature as error:
        raise SignatureError("the signature does not match the manifest") from error
    return key


def fingerprint(key: bytes) -> str:
    """A short name of a public key, for people to compare."""
    return short_hash(key)
