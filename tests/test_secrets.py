"""Secrets: where they come from, in which order, and that none is ever shown."""

from pathlib import Path

import pytest

from streams.config.config import Config
from streams.secrets.load import SecretsError, create_secrets, load_secrets, readable_by_others

ONE, TWO, THREE = "11" * 32, "22" * 32, "33" * 32


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PSEUDONYM_KEY", "PROJECTION_SEED"):
        monkeypatch.delenv(f"PROBEWATCH_{name}", raising=False)
        monkeypatch.delenv(f"PROBEWATCH_{name}_FILE", raising=False)


def test_none_is_an_error_that_says_how_to_give_one() -> None:
    with pytest.raises(SecretsError, match="pseudonym_key: not set; give PROBEWATCH_PSEUDONYM_KEY"):
        load_secrets(Config())


def test_the_nearest_place_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, its file, configuration, the folder, and the offline folder last."""
    made = create_secrets(tmp_path / "artefacts")
    for name in ("pseudonym_key", "projection_seed"):
        (tmp_path / name).write_text(TWO + "\n")
    folder = Config(secrets={"directory": tmp_path, "key_id": "k7"})
    offline = load_secrets(Config(), tmp_path / "artefacts")
    assert offline.pseudonym_key.hex() == made[0].read_text().strip()
    assert load_secrets(folder, tmp_path / "artefacts").pseudonym_key.hex() == TWO
    monkeypatch.setenv("PROBEWATCH_PSEUDONYM_KEY", ONE)
    (tmp_path / "three").write_text(THREE)
    monkeypatch.setenv("PROBEWATCH_PROJECTION_SEED_FILE", str(tmp_path / "three"))
    loaded = load_secrets(folder)
    assert (loaded.pseudonym_key.hex(), loaded.projection_seed.hex(), loaded.key_id) == (ONE, THREE, "k7")


def test_secrets_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    made = create_secrets(tmp_path)
    assert [path.name for path in made] == ["pseudonym_key", "projection_seed"]
    assert not any(readable_by_others(path) for path in made)
    before = load_secrets(Config(), tmp_path)
    assert before.pseudonym_key != before.projection_seed
    assert create_secrets(tmp_path) == []
    assert load_secrets(Config(), tmp_path) == before


@pytest.mark.parametrize("text", ["", "11" * 31, "zz" * 32, "11" * 33, "é"])
def test_a_malformed_one_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SecretsError) as caught:
        load_secrets(Config(secrets={"pseudonym_key_file": path}))
    assert "expected 64 hexadecimal digits" in str(caught.value)
    assert not text or text not in str(caught.value)


def test_a_named_file_that_is_missing_is_not_passed_over(tmp_path: Path) -> None:
    create_secrets(tmp_path)
    with pytest.raises(SecretsError, match="no such file"):
        load_secrets(Config(secrets={"pseudonym_key_file": tmp_path / "absent"}), tmp_path)


def test_representation_hides_both(tmp_path: Path) -> None:
    create_secrets(tmp_path)
    loaded = load_secrets(Config(), tmp_path)
    assert loaded.pseudonym_key.hex() not in repr(loaded)
    assert repr(loaded.projection_seed) not in repr(loaded)


def test_while_keys_rotate_the_one_before_is_asked_for(tmp_path: Path) -> None:
    given = {"pseudonym_key": ONE, "projection_seed": THREE, "key_id": "k2", "previous_key_id": "k1"}
    with pytest.raises(SecretsError, match="previous_pseudonym_key: not set"):
        load_secrets(Config(secrets=given))
    (tmp_path / "before").write_text(TWO)
    found = load_secrets(Config(secrets=given | {"previous_pseudonym_key_file": tmp_path / "before"}))
    assert found.previous == (bytes.fromhex(TWO), "k1")
    assert TWO not in repr(found)
    with pytest.raises(SecretsError, match="the same as pseudonym_key"):
        load_secrets(Config(secrets=given | {"previous_pseudonym_key": ONE}))
    with pytest.raises(ValueError, match="previous_key_id must differ"):
        Config(secrets=given | {"previous_key_id": "k2"})
