"""Configuration: what it accepts, what its errors say, what its hash covers, and that the page names every key."""

from pathlib import Path

import pytest

from streams.config.config import Config, load_config
from streams.config.input import Input
from streams.config.keys import ConfigError, keys, page

PSEUDONYM = "k1-" + "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "probewatch.toml"


def test_defaults_need_no_file(file: Path) -> None:
    config = load_config()
    assert config.topics.requests == "probewatch.requests.v1"
    assert config.policy.mode == "shadow"
    assert (config.policy.hard.action, config.policy.hard.requests_per_minute) == ("cap", 1)
    assert config.input.earliest_ms == 946_684_800_000


def test_the_environment_lies_on_top_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[kafka]\nbootstrap = "one:1"\ngroup = "file"\n')
    monkeypatch.setenv("PROBEWATCH_KAFKA__BOOTSTRAP", "two:2")
    monkeypatch.setenv("PROBEWATCH_TOPICS__RAW", "a, b")
    config = load_config()
    assert (config.kafka.bootstrap, config.kafka.group, config.topics.raw) == ("two:2", "file", ("a", "b"))


def test_a_level_given_in_part_keeps_the_rest_of_its_own_default(file: Path) -> None:
    file.write_text("[policy.soft]\nduration_s = 5\n")
    soft = load_config().policy.soft
    assert (soft.action, soft.requests_per_minute, soft.duration_s) == ("cap", 10, 5)


def test_paths_are_relative_to_their_file(file: Path) -> None:
    file.write_text('artefacts = "fitted"\n[secrets]\ndirectory = "/run/secrets"\n')
    config = load_config()
    assert config.artefacts == file.parent / "fitted"
    assert config.secrets.directory == Path("/run/secrets")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[policy.soft]\nduration_s = 0", "policy.soft.duration_s: expected a whole number, 1 to 2,592,000; got 0"),
        ("[policy]\nmode = 'enforc'", "policy.mode: expected one of `shadow`, `enforce`; got 'enforc'"),
        ("[polcy]\nmode = 1", "polcy: unknown key; known here: artefacts, kafka,"),
        ("[policy]\nmod = 1", "policy.mod: unknown key in [policy]; known here: mode,"),
        (
            "[models.loan]\nthreshold = 1",
            "models.loan.threshold: unknown key in [models.loan]; known here: decision_threshold",
        ),
        ("[models.loan]\ndecision_threshold = nan", "models.loan.decision_threshold: expected a number"),
        ("[input]\nearliest = 'soon'", "input.earliest: expected a date, or a time with its zone; got 'soon'"),
        ("[input]\nlatest = 1999-01-01", "input: earliest must lie before latest"),
        ("[input.registry]\nbob = 'broker'", "input.registry: keys must be pseudonyms"),
        (f"[input.registry]\n{PSEUDONYM} = 'friend'", "expected 'consumer', 'broker' or 'system'; got 'friend'"),
        ("[policy.soft]\naction = 'delay'", "policy.soft: action `delay` needs delay_ms"),
        ("[kafka]\nsecurity_protocol = 'SASL_SSL'", "kafka: this security_protocol needs sasl_username"),
        ("[topics]\nraw = []", "topics.raw: expected a list of names; got []"),
        ("[[", "probewatch.toml: "),
    ],
)
def test_errors_name_the_key_the_range_and_what_it_got(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)


def test_every_fault_is_told_at_once_and_no_secret_is(file: Path) -> None:
    file.write_text("[kafka]\nsasl_password = 12345\n[web]\nport = -1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert len(str(caught.value).splitlines()) == 2
    assert "12345" not in str(caught.value)


def test_a_mistyped_variable_is_an_error_but_kubernetes_own_are_not(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBEWATCH_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PROBEWATCH_PORT_6066_TCP", "tcp://10.0.0.1:6066")
    load_config()
    monkeypatch.setenv("PROBEWATCH_POLCY__MODE", "enforce")
    with pytest.raises(ConfigError, match="PROBEWATCH_POLCY__MODE: no such section"):
        load_config()


def test_a_named_file_must_exist(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(file)


def test_the_hash_covers_what_moves_events_and_nothing_else(file: Path) -> None:
    base = Config().hash
    same = [
        Config(kafka={"bootstrap": "elsewhere:1"}),
        Config(artefacts="/other"),
        Config(secrets={"directory": "/other", "key_id": "k2"}),
        Config(web={"port": 1}),
        Config(topics={"alerts": "other"}),
        Config(state={"round_s": 5}),
    ]
    other = [
        Config(policy={"mode": "enforce"}),
        Config(policy={"soft": {"duration_s": 901}}),
        Config(models={"loan": {"decision_threshold": 0.4}}),
        Config(state={"blocks": 32}),
        Config(input={"max_rows": 5}),
        Config(input={"registry": {PSEUDONYM: "broker"}}),
    ]
    assert {config.hash for config in same} == {base}
    assert len({base, *(config.hash for config in other)}) == len(other) + 1


def test_the_registry_comes_from_its_file(file: Path) -> None:
    (file.parent / "clients.toml").write_text(f'{PSEUDONYM} = "broker"\n')
    file.write_text('[input]\nregistry_file = "clients.toml"\n')
    assert load_config().input.registry == {PSEUDONYM: "broker"}
    inline = Config(input=Input(registry={PSEUDONYM: "broker"}))
    assert load_config().hash == inline.hash
    (file.parent / "clients.toml").write_text(f'{PSEUDONYM} = "friend"\n')
    with pytest.raises(ConfigError, match="one of consumer, broker, system; got 'friend'"):
        load_config()


def test_the_password_file_is_read_for_clients(file: Path) -> None:
    (file.parent / "password").write_text("swordfish\n")
    file.write_text(
        '[kafka]\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_username = "svc"\nsasl_password_file = "password"\n'
    )
    assert load_config().kafka.client()["sasl_plain_password"] == "swordfish"
    assert "swordfish" not in repr(load_config())


def test_the_reference_page_is_the_one_that_the_code_writes() -> None:
    """`make docs` mends it. The page is generated, so this also proves that it names every key."""
    written = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert written.read_text(encoding="utf-8") == page(Config)
    names = [key.name for key in keys(Config)]
    assert len(names) > 50
    assert all(f"`{name}`" in page(Config) for name in names)
    assert all(key.description for key in keys(Config))
