"""`calibrate` says what it could not read of a history, lists it, and refuses where that is much."""

import json
from pathlib import Path

import pytest

from detector.settings import Model
from models.artefacts.manifest import MANIFEST
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.base import SourceError
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import load_secrets
from streams.sketch.model_names import ModelNames, ModelSpellings
from streams.wire.memo import KEY_BYTES_MAX, TwoGenerations
from streams.wire.rejects import Reject, told
from tests.history import Row, benign
from tests.pipeline import fixed_secrets


def without_offsets(rows: list[Row], every: int) -> list[Row]:
    """Some of the times as a log writes them that forgets its zone."""
    return [row | ({} if number % every else {"ts": "2023-11-15T10:00:00"}) for number, row in enumerate(rows)]


def fit(folder: Path, rows: list[Row], **options: float) -> str:
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fixed_secrets(folder)
    config = Config()
    sources = open_sources([str(folder / "log.jsonl")], config)
    return calibrate(sources, folder, config, load_secrets(config, folder), Silent(), **options).unread  # type: ignore[arg-type]


def test_more_than_one_in_a_hundred_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    rows = without_offsets(benign(60, seed=3), every=5)
    bad = sum(isinstance(row["ts"], str) for row in rows)
    said = f"{len(rows):,} records: {bad} rejected (ts: a time without an offset {bad})"
    with pytest.raises(SourceError) as caught:
        fit(tmp_path, rows)
    assert str(caught.value).startswith(said) and "--max-rejected" in str(caught.value)
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == bad
    assert not (tmp_path / MANIFEST).exists()
    other = tmp_path / "other"
    other.mkdir()
    assert fit(other, rows, max_rejected=0.3).startswith(said) and (other / MANIFEST).exists()


def test_a_history_of_which_nothing_is_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"6 records: 6 rejected \(client_id: nothing 6\)"):
        fit(tmp_path, [{"ts": 1.7e9, "model": "loan", "features": {"a": 1}}] * 6, max_rejected=1.0)


def test_milliseconds_other_cases_and_quoted_numbers_are_read(tmp_path: Path) -> None:
    rows = [
        row
        | {"ts": int(1_000 * row["ts"]), "model": ("loan", "Loan")[number % 2], "client_id": number // 2}
        | {"features": {name: str(value) if number % 3 == 0 else value for name, value in row["features"].items()}}
        for number, row in enumerate(benign(60, seed=3))
    ]
    assert fit(tmp_path, rows) == ""
    [model] = json.loads((tmp_path / MANIFEST).read_text())["models"]
    fields = dict(zip(model["encoder"]["names"], model["encoder"]["categories"], strict=True))
    assert model["model"] == "loan" and [name for name, known in fields.items() if known] == ["purpose"]


def test_the_most_frequent_kinds_are_told() -> None:
    rejects = [Reject("t", 0, n, 0, f"f{n % 7}", "x", "nothing", "missing") for n in range(20)]
    said = told(6_000, rejects, {"no_input": 12, "few_fields": 0})
    assert said.startswith("6,000 records: 20 rejected (f0: nothing 3, f1: nothing 3,") and said.count("nothing") == 5
    assert said.endswith("…); 12 not judged (no_input 12)") and told(5, [], {}) == ""


def test_names_of_models() -> None:
    names = ModelNames(
        ["loan", "Risk", "risk"], {"loan": Model(aliases=("credit", "Risk")), "gone": Model(aliases=("x",))}
    )
    found = {name: names.of(name) for name in ("loan", "LOAN", "Credit", "risk", "Risk", "RISK", "x", "", "other")}
    assert found == {
        "loan": "loan", "LOAN": "loan", "Credit": "loan", "risk": "risk", "Risk": "Risk", "RISK": None, "x": None,
        "": None, "other": None,
    }  # fmt: skip
    spellings = ModelSpellings({"loan": Model(aliases=("credit",))})
    assert [spellings.of(name) for name in ("CREDIT", "Face", "FACE", "Loan")] == ["loan", "Face", "Face", "loan"]


def test_keys_of_a_megabyte_are_not_kept() -> None:
    memo = TwoGenerations(len, 10)
    assert memo[b"x" * KEY_BYTES_MAX] == KEY_BYTES_MAX and memo[b"x"] == 1 and list(memo) == [b"x"]
