"""Secrets are planted, the service runs and fails at debug logging, and all that it said and wrote is searched."""

import asyncio
import json
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import msgspec
import pytest

from streams.config.config import Config
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.kafka.topics import plans
from streams.ops.doctor import examine
from streams.secrets import vault
from streams.secrets.load import load_secrets
from streams.worker.app import Worker, reason
from tests.history import sweeps
from tests.kafka.closed_broker import ROOT, Closed, as_user
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, read_topic, until, write_raw
from tests.planted import everything_logged, forms, leaks
from tests.test_cli import call
from tests.test_worker import working
from tests.vault_server import VaultServer

TOKEN = "hvs.cGxhbnRlZC10b2tlbi1mb3ItdGVzdHM"
PASSWORD = "planted-Password/with+signs"


@pytest.fixture
def server(fitted: Calibrated) -> Iterator[VaultServer]:
    """Vault with the secrets that the artefacts were made with."""
    names = ("pseudonym_key", "projection_seed")
    fields = {name: (fitted.folder / "secrets" / name).read_text().strip() for name in names}
    signing = {"signing_key": (fitted.folder / "secrets" / "signing_key").read_text().strip()}
    vault.read.cache_clear()
    with VaultServer(TOKEN, fields | signing | {"sasl_password": PASSWORD}).serving() as running:
        yield running


def planted(fitted: Calibrated) -> dict[str, bytes]:
    keys = ("pseudonym_key", "projection_seed", "signing_key")
    found = {name: bytes.fromhex((fitted.folder / "secrets" / name).read_text()) for name in keys}
    return found | {"token": TOKEN.encode(), "password": PASSWORD.encode()}


def with_secrets(config: Config, server: VaultServer, fitted: Calibrated) -> Config:
    found = Config(artefacts=fitted.folder, secrets={"vault": {"address": server.address, "token": TOKEN}})
    return config.model_copy(update={"artefacts": found.artefacts, "secrets": found.secrets})


async def run_and_listen(config: Config, feeder: Config, reader: Config, fitted: Calibrated) -> bytes:
    """What a worker shows and writes while it judges: metrics, health pages, every record of its topics."""
    said = b""
    async with working(config, fitted._replace(secrets=load_secrets(config))) as worker:
        await write_raw(feeder, [*sweeps(2, 60, seed=6), {"client_id": "b", "ts": "never"}])
        await until(lambda: all_handled(reader), "all committed")
        async with aiohttp.ClientSession() as http:
            for page in ("metrics", "live", "ready", "nothing"):
                said += await (await http.get(f"{worker.health.address}/{page}")).read()
        said += repr((worker, worker.runners, vars(worker.health))).encode()
    for plan in plans(config):
        for record in await read_topic(reader, plan.name):
            said += repr((record.key, record.headers)).encode() + (record.key or b"") + (record.value or b"")
    return said


def shown(config: Config) -> bytes:
    """What a configuration and its secrets show of themselves."""
    secrets = load_secrets(config)
    texts = (repr(config), str(config), config.model_dump_json(), repr(secrets), str(secrets), f"{secrets}")
    return "\n".join((*texts, repr(vault.read(config.secrets.vault)))).encode()


def test_the_search_finds_what_it_should() -> None:
    secrets = {"token": TOKEN.encode()}
    for form in forms(TOKEN.encode()):
        assert leaks(b"some words around " + form + b" and after", secrets)
    assert leaks(b"harmless", secrets) == []


async def test_none_is_said_or_written(
    embedded_broker: str, namespace: str, fitted: Calibrated, server: VaultServer, capfd: pytest.CaptureFixture[str]
) -> None:
    config = with_secrets(kafka_config(embedded_broker, namespace), server, fitted)
    await topics.create(config, RAW_PARTITIONS)
    with everything_logged() as log:
        said = await run_and_listen(config, config, config, fitted)
        said += shown(config)
    said += log.getvalue().encode() + "".join(capfd.readouterr()).encode()
    assert len(log.getvalue()) > 10_000 and len(said) > 100_000
    assert leaks(said, planted(fitted)) == []


def test_none_is_in_what_commands_say_of_faults(
    fitted: Calibrated, server: VaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong: the broker, Vault, the type of a key, the place of a key."""
    monkeypatch.chdir(tmp_path)
    good = f'[secrets.vault]\naddress = "{server.address}"\ntoken = "{TOKEN}"\n'
    sasl = '[kafka]\nbootstrap = "127.0.0.1:9"\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_username = "u"\n'
    wrong = (
        good + sasl,
        good + sasl + f'sasl_password = "{PASSWORD}"\n',
        good + f'kubernetes_role = "{PASSWORD}"\n',
        f'[secrets]\nvault = "{TOKEN}"\n',
        f'[secrets]\npseudonym_key = ["{PASSWORD}"]\n',
        f'[secrets]\npublic_keys = ["{PASSWORD}"]\n',
        f'[kafka]\nsasl_password = ["{PASSWORD}"]\n',
        f'[kafka]\nsasl_pasword = "{PASSWORD}"\n',
        f'[secrets]\npseudonym_key = "{PASSWORD}"\nprojection_seed = "{TOKEN}"\n',
        f'[secrets]\nsigning_key = "{PASSWORD}\n',
    )
    said = ""
    with everything_logged() as log:
        for text in wrong:
            vault.read.cache_clear()
            (tmp_path / "probewatch.toml").write_text(text)
            for words in (("doctor", "--json"), ("doctor",), ("client-id", "x"), ("topics", "check")):
                result = call(*words)
                assert result.exit_code != 0 or words[0] == "client-id", (text, words)
                said += result.stdout + result.stderr
                if result.exception is not None:
                    said += "".join(traceback.format_exception(result.exception))
    assert "not shown" in said and "unknown key" in said
    assert leaks((said + log.getvalue()).encode(), planted(fitted)) == []


@pytest.mark.kafka
async def test_none_is_said_or_written_where_passwords_are_used(
    closed: Closed, namespace: str, fitted: Calibrated, server: VaultServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """SCRAM and TLS with the real ones, a wrong password, a right that is missing."""
    base = kafka_config(closed.scram, namespace)
    closed.grant(base)
    await topics.create(as_user(base, closed, ROOT), RAW_PARTITIONS)
    worker = with_secrets(as_user(base, closed, "worker"), server, fitted)
    wrong = worker.model_copy(
        update={"kafka": type(worker.kafka)(**closed.kafka("worker") | {"sasl_password": PASSWORD})}
    )
    with everything_logged() as log:
        said = await run_and_listen(worker, as_user(base, closed, "gateway"), as_user(base, closed, ROOT), fitted)
        said += shown(worker) + shown(wrong)
        said += await faults(worker, wrong, as_user(base, closed, "door"), fitted)
        log_text = log.getvalue()
    said += log_text.encode() + "".join(capfd.readouterr()).encode()
    assert "SCRAM" in log_text or "Authenticated" in log_text
    own = {f"password of {user}": (closed.folder / f"{user}.password").read_bytes() for user in ("worker", ROOT)}
    key = b"".join((closed.folder / "worker.key").read_bytes().splitlines()[1:-1])
    secrets: Mapping[str, bytes] = planted(fitted) | own | {"TLS key": key[:40]}
    assert leaks(said, secrets) == []


async def faults(worker: Config, wrong: Config, door: Config, fitted: Calibrated) -> bytes:
    said = ""
    with pytest.MonkeyPatch.context() as patch:
        for config in (worker, wrong, door):
            patch.setattr("streams.ops.doctor.load_settings", lambda _, config=config: config)
            checks = await asyncio.to_thread(examine, None)
            said += json.dumps([msgspec.structs.asdict(check) for check in checks])
    for config in (wrong, door):
        try:
            await Worker(config, await probe(worker.kafka), fitted.artefacts, fitted.secrets).run(asyncio.Event())
        except Exception as error:
            said += reason(error) + "".join(traceback.format_exception(error))
    assert "SaslAuthenticationFailed" in said and "no right Read" in said
    return said.encode()
