"""Secrets from Vault: every way to log in, every way it can refuse, and that no error shows a token or a value."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.config.config import Config, load_config
from streams.config.keys import ConfigError
from streams.secrets import vault
from streams.secrets.load import SecretsError, create_secrets, load_secrets, load_settings
from tests.kafka.certificates import certificates
from tests.vault_server import VaultServer

TOKEN = "hvs.planted-token"
FIELDS = {"pseudonym_key": "11" * 32, "projection_seed": "22" * 32, "sasl_password": "planted-password"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAULT_TOKEN", "hvs.of-somebody-else")
    vault.read.cache_clear()


@pytest.fixture
def server() -> Iterator[VaultServer]:
    with VaultServer(TOKEN, FIELDS, secret_id="planted-secret-id").serving() as running:
        yield running


def config(server: VaultServer, **keys: Any) -> Config:
    return Config(secrets={"vault": {"address": server.address} | (keys or {"token": TOKEN})})


def test_both_secrets_come_from_one_read(server: VaultServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    loaded = load_secrets(config(server, token_file=tmp_path / "token"))
    assert (loaded.pseudonym_key.hex(), loaded.projection_seed.hex()) == ("11" * 32, "22" * 32)
    assert server.reads == 1


def test_what_is_nearer_wins_and_offline_secrets_come_last(server: VaultServer, tmp_path: Path) -> None:
    create_secrets(tmp_path / "artefacts")
    (tmp_path / "pseudonym_key").write_text("33" * 32)
    keys = {"directory": tmp_path, "vault": {"address": server.address, "token": TOKEN}}
    loaded = load_secrets(Config(secrets=keys), tmp_path / "artefacts")
    assert (loaded.pseudonym_key.hex(), loaded.projection_seed.hex()) == ("33" * 32, "22" * 32)


def test_an_approle_logs_in(server: VaultServer, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("planted-secret-id\n")
    assert load_secrets(config(server, role_id="role", secret_id_file=tmp_path / "id")).key_id == "k1"
    (tmp_path / "other").write_text("planted-wrong-id")
    with pytest.raises(SecretsError, match="the login was refused") as caught:
        load_secrets(config(server, role_id="role", secret_id_file=tmp_path / "other"))
    assert "planted" not in str(caught.value)


def test_the_sasl_password_too(server: VaultServer, tmp_path: Path) -> None:
    text = f"""
[kafka]
security_protocol = "SASL_PLAINTEXT"
sasl_username = "worker"
[secrets.vault]
address = "{server.address}"
token = "{TOKEN}"
"""
    (tmp_path / "probewatch.toml").write_text(text)
    settings = load_settings()
    assert settings.kafka.client()["sasl_plain_password"] == "planted-password"
    assert "planted" not in repr(settings)
    del server.fields["sasl_password"]
    vault.read.cache_clear()
    with pytest.raises(SecretsError, match="sasl_password: not set"):
        load_settings()
    (tmp_path / "probewatch.toml").write_text(text.partition("[secrets.vault]")[0])
    with pytest.raises(ConfigError, match=r"^kafka\.sasl_password: not set"):
        load_config()


@pytest.mark.parametrize(
    ("state", "keys", "words"),
    [
        ("sealed", {"token": TOKEN}, "sealed, or down"),
        ("deleted", {"token": TOKEN}, "nothing there"),
        ("ready", {"token": "planted-other"}, "permission denied"),
        ("ready", {"token": TOKEN, "path": "elsewhere"}, "nothing there"),
        ("ready", {"token_file": "absent"}, "absent: No such file"),
    ],
)
def test_a_refusal_names_the_place_and_nothing_secret(
    server: VaultServer, state: str, keys: dict[str, str], words: str
) -> None:
    server.state = state
    with pytest.raises(SecretsError, match=words) as caught:
        load_secrets(config(server, **keys))
    assert "planted" not in str(caught.value) and caught.value.__cause__ is None
    assert server.address in str(caught.value) or "absent" in str(caught.value)


def test_a_malformed_value_is_named_and_not_shown(server: VaultServer) -> None:
    server.fields["pseudonym_key"] = "planted-nonsense"
    with pytest.raises(SecretsError, match="pseudonym_key: expected 64 hexadecimal digits") as caught:
        load_secrets(config(server))
    assert "planted" not in str(caught.value)


def test_the_certificate_is_verified(tmp_path: Path) -> None:
    certificates(tmp_path, ("vault",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "vault.pem", tmp_path / "vault.key")
    with VaultServer(TOKEN, FIELDS).serving(context) as server:
        with pytest.raises(SecretsError, match="its certificate is not trusted"):
            load_secrets(config(server))
        assert load_secrets(config(server, token=TOKEN, ca_file=tmp_path / "ca.pem")).key_id == "k1"


def test_nobody_there_is_said_so() -> None:
    keys = {"vault": {"address": "http://127.0.0.1:9", "token": TOKEN}}
    with pytest.raises(SecretsError, match="cannot be reached"):
        load_secrets(Config(secrets=keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"address": "http://vault.example:8200", "token": TOKEN},
        {"address": "https://user:planted@vault.example", "token": TOKEN},
        {"address": "https://vault.example"},
        {"address": "https://vault.example", "token": TOKEN, "kubernetes_role": "x"},
        {"address": "https://vault.example", "role_id": "x"},
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"address must be https|give one of token") as caught:
        Config(secrets={"vault": keys})
    assert TOKEN not in str(caught.value)
