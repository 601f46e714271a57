"""The pseudonym key of a door: from text, a file or the environment; errors name the source and never the key."""

from pathlib import Path

import pytest

from models.pseudonym import client_of, pseudonym
from probewatch_door.pseudonym import PseudonymKey, PseudonymKeyError, pseudonyms
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, pseudonym_keys, pseudonyms_of

HEX = "ab" * 32
KEY = PseudonymKey("k7", bytes.fromhex(HEX))


def test_a_key_is_read_from_text_a_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(HEX + "\n")
    assert KEY == PseudonymKey.from_hex(HEX, "k7") == PseudonymKey.from_file(file, "k7")
    monkeypatch.setenv("PROBEWATCH_PSEUDONYM_KEY_FILE", str(file))
    assert PseudonymKey.from_environment("k7") == KEY
    monkeypatch.setenv("PROBEWATCH_PSEUDONYM_KEY", "cd" * 32)
    assert PseudonymKey.from_environment().secret == b"\xcd" * 32, "the variable comes before the file"
    monkeypatch.setenv("OLD_KEY", HEX)
    assert PseudonymKey.from_environment("k7", "OLD_KEY") == KEY


@pytest.mark.parametrize("text", ["", "ab" * 31, "zz" * 32, "ab" * 33])
def test_a_malformed_key_is_named_and_not_shown(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(PseudonymKeyError, match="key: expected 64 hexadecimal digits; got something else") as error:
        PseudonymKey.from_file(tmp_path / "key")
    assert not text or text not in str(error.value)
    with pytest.raises(PseudonymKeyError, match="key_id: expected 1 to 16"):
        PseudonymKey.from_hex(HEX, "K-1")
    with pytest.raises(PseudonymKeyError, match="No such file"):
        PseudonymKey.from_file(tmp_path / "none")
    monkeypatch.delenv("PROBEWATCH_PSEUDONYM_KEY", raising=False)
    with pytest.raises(PseudonymKeyError, match="set PROBEWATCH_PSEUDONYM_KEY or PROBEWATCH_PSEUDONYM_KEY_FILE"):
        PseudonymKey.from_environment()
    assert HEX not in f"{KEY} {KEY!r}" and "\\xab" not in f"{KEY!r}"


def test_doors_and_the_service_name_a_client_alike() -> None:
    secrets = Secrets(KEY.secret, "k7", b"s" * 32, (b"o" * 32, "k6"))
    keys = pseudonym_keys(secrets)
    assert [key.key_id for key in keys] == ["k7", "k6"] and keys[0] == KEY
    assert pseudonyms("acct-é", keys) == pseudonyms_of("acct-é", secrets)
    client, tail = Identity(KEY.secret, "k7", b"s" * 32).client("acct-é")
    assert pseudonym("k7", client, tail) == pseudonyms("acct-é", keys)[0]
    assert client_of(pseudonyms("acct-é", keys)[0]) == client
