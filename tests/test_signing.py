"""Signed artefacts: what is refused, in which words, and who is trusted."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from models.artefacts import manifest
from models.artefacts.signing import SIGNATURE_FILE, SignatureError, fingerprint, public_key, sign, signer
from models.artefacts.store import SCHEMA, ArtefactError, inspect_artefacts, load_artefacts, readable, save_artefacts
from streams.cli import app
from streams.fit import openssf
from tests.pipeline import HANGS_S

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SEED = bytes(32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Artefacts of no model, which is all that signatures need."""
    save_artefacts(tmp_path, [], {"by": "a test"}, KEY, {"certificate.md": b"# Certificate\n"})
    return tmp_path


def refusal(folder: Path, *trusted: bytes) -> str:
    with pytest.raises(ArtefactError) as caught:
        load_artefacts(folder, SEED, trusted)
    return str(caught.value)


def test_a_known_signature_of_rfc_8032() -> None:
    """Section 7.1, test 1: whatever library stands below, it is Ed25519."""
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    assert public_key(private).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    made = json.loads(sign(private, b""))["signature"]
    assert made.startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_what_was_signed_is_loaded_and_says_by_whom(folder: Path) -> None:
    assert load_artefacts(folder, SEED, [public_key(KEY)]).models == {}
    found = inspect_artefacts(folder, [public_key(KEY)])
    assert (found.signer, found.trusted, found.faults) == (public_key(KEY), True, ())
    assert [(file.name, file.state) for file in found.files] == [("certificate.md", "as signed")]


def test_unsigned_is_refused(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()
    assert "not signed" in refusal(folder, public_key(KEY))


def test_an_altered_manifest_is_refused(folder: Path) -> None:
    altered = json.loads((folder / manifest.MANIFEST).read_text())
    (folder / manifest.MANIFEST).write_text(json.dumps(altered | {"provenance": {"by": "somebody else"}}))
    assert "does not match the manifest" in refusal(folder, public_key(KEY))


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"public_key":"","manifest_sha256":"","signature":""}'])
def test_an_unreadable_signature_is_refused(folder: Path, text: bytes) -> None:
    (folder / SIGNATURE_FILE).write_bytes(text)
    assert "is unreadable" in refusal(folder, public_key(KEY))
    with pytest.raises(SignatureError):
        signer(text, b"")


def test_an_altered_file_is_refused(folder: Path) -> None:
    (folder / "certificate.md").write_text("# A better certificate\n")
    assert "certificate.md: altered since it was signed" in refusal(folder, public_key(KEY))
    (folder / "certificate.md").unlink()
    assert "certificate.md: missing since it was signed" in refusal(folder, public_key(KEY))


def test_a_foreign_key_is_refused_and_the_way_out_is_told(folder: Path) -> None:
    said = refusal(folder, public_key(OTHER))
    assert f"signed by {fingerprint(public_key(KEY))}" in said
    assert f"add {public_key(KEY).hex()} to secrets.public_keys" in said


def test_somebody_who_signs_altered_files_anew_is_foreign(folder: Path) -> None:
    files = {"certificate.md": b"# A better certificate\n"}
    manifest.seal(folder, files, {"schema": SCHEMA, "models": [], "provenance": {}}, OTHER)
    assert "not trusted here" in refusal(folder, public_key(KEY))


def test_a_folders_own_key_counts_only_while_none_is_configured(folder: Path) -> None:
    assert "there is no secrets/signing_key.pub" in refusal(folder)
    (folder / manifest.SECRETS_FOLDER).mkdir()
    manifest.write_own_key(folder, KEY)
    assert load_artefacts(folder, SEED).models == {}
    assert "not trusted" in refusal(folder, public_key(OTHER))


def test_the_manifest_cannot_point_outside_its_folder(folder: Path) -> None:
    """Even a trusted signer's: only names of the folder are looked at."""
    outside = folder.parent / "outside"
    outside.write_bytes(b"x")
    manifest.seal(folder, {}, {"schema": SCHEMA, "models": [], "provenance": {}}, KEY)
    altered = json.loads((folder / manifest.MANIFEST).read_text()) | {"files": {"../outside": "0" * 64}}
    (folder / manifest.MANIFEST).write_text(json.dumps(altered))
    found = inspect_artefacts(folder, [public_key(KEY)])
    assert found.files[0].state == "missing"


def test_verify_says_so_when_this_version_cannot_read_them(folder: Path) -> None:
    """As `load_artefacts` does, and without the secrets: signed is not yet usable."""
    assert readable(folder, inspect_artefacts(folder, [public_key(KEY)])) == ""
    entry = {"model": "loan", "file": "model-0.npz", "encoder": {"kind": "hologram"}, "encoder_id": "0"}
    later = {"certificate.json": b'{"of": "a later version"}'}
    for models, files in (([entry], {}), ([{"name": "loan"}], {}), ([], later)):
        manifest.seal(folder, files, {"schema": SCHEMA, "models": models, "provenance": {}}, KEY)
        said = CliRunner().invoke(app, ["verify", str(folder), "--key", _key_file(folder)])
        assert (said.exit_code, refusal(folder, public_key(KEY)) in said.stderr) == (1, True), said.output
        assert "of another version of Probewatch" in said.stderr


def _key_file(folder: Path) -> str:
    file = folder.parent / "signer.pub"
    file.write_text(public_key(KEY).hex())
    return str(file)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_agrees(folder: Path) -> None:
    """A second implementation checks our signature."""
    key = folder / "key.pem"
    prefix = bytes.fromhex("302a300506032b6570032100")  # RFC 8410
    loaded = serialization.load_der_public_key(prefix + public_key(KEY))
    key.write_bytes(loaded.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    signature = folder / "signature.bin"
    signature.write_bytes(bytes.fromhex(json.loads((folder / SIGNATURE_FILE).read_text())["signature"]))
    arguments = [
        "-pubin",
        "-inkey",
        str(key),
        "-rawin",
        "-in",
        str(folder / manifest.MANIFEST),
        "-sigfile",
        str(signature),
    ]
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", *arguments], capture_output=True, check=False, timeout=HANGS_S
    )
    assert done.returncode == 0, done.stderr


def test_openssf_signatures_hold_until_a_file_changes(folder: Path) -> None:
    pytest.importorskip("model_signing", reason='pip install ./door ".[openssf]"')
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private, public = folder.parent / "ec.pem", folder.parent / "ec.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert openssf.sign(folder, private) == folder / "model.sig"
    (folder / "checks").mkdir()
    (folder / "checks" / "last.json").write_text("{}")
    assert openssf.verify(folder, public) == ""
    (folder / "certificate.md").write_text("# Another\n")
    assert "certificate.md" in openssf.verify(folder, public)
    with pytest.raises(ArtefactError, match="cannot sign"):
        openssf.sign(folder, public)
