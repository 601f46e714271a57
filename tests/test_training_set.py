"""`probewatch training-set` and what becomes of it: files of every kind, errors in them, refused sets, flags."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from models.artefacts.store import load_artefacts
from models.artefacts.training_set import Members
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, fit_table
from models.rows import FLAG_MEMBER
from streams.cli import app
from streams.config.config import Config
from streams.fit.training_set import assign, make_set, read_set
from streams.history.base import SourceError
from streams.progress import Silent
from streams.secrets.load import load_secrets
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher
from tests.history import Row, benign, lines, write_jsonl

SEED = bytes(range(32))
TWO_MODELS = '{"model": "m", "features": {"a": 1}}\n{"model": "n", "features": {"a": 1}}\n'


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def features(clients: int, seed: int) -> list[Row]:
    return [row["features"] for row in benign(clients, seed)]


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def made(path: Path, text: str | bytes, model: str = "", leave_out: Sequence[str] = ()) -> Members:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return make_set(path, path.with_name("out.set"), SEED, Silent(), model, leave_out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of "loan" that know 900 rows of training, made by the commands alone."""
    at = tmp_path_factory.mktemp("members")
    write_csv(at / "train.csv", [row | {"default": 1} for row in features(500, 7)])
    write_jsonl(at / "log.jsonl", benign(120, 1))
    made = call("training-set", at / "train.csv", "--leave-out", "default", "--out", at / "art" / "train.set", "--json")
    assert made.exit_code == 0, made.output
    about = json.loads(made.stdout)
    assert about["false_positives"] <= 1e-4 and about["fields"]["purpose"] == "category" and len(about["fields"]) == 8
    done = call("calibrate", at / "log.jsonl", "--out", at / "art", "--training-set", at / "art" / "train.set")
    assert done.exit_code == 0, done.output
    return at


def test_training_rows_are_flagged_and_others_are_not(folder: Path) -> None:
    secrets = load_secrets(Config(), folder / "art")
    artefacts = load_artefacts(folder / "art", secrets.projection_seed)
    sketcher = Sketcher(artefacts, Identity(secrets.pseudonym_key, "k1", secrets.projection_seed), Config())
    training = benign(500, 7)
    known = {tuple(row["features"].values()) for row in training}
    others = [row for row in benign(2_000, 8) if tuple(row["features"].values()) not in known]
    bodies = [row | {"request_id": f"r{place}"} for place, row in enumerate(training + others)]
    raws = [RawRecord(place, line, None, (), -1) for place, line in enumerate(lines(bodies))]
    [frame] = sketcher.frames("t", 0, "0", raws[: len(training)], 1).frames
    assert (frame.rows.flags & FLAG_MEMBER).all() and frame.rows.count == len(training)
    [frame] = sketcher.frames("t", 0, "0", raws[len(training) :], 1).frames
    assert int((frame.rows.flags & FLAG_MEMBER).astype(bool).sum()) <= 3 and frame.rows.count > 2_000
    assert np.isfinite(frame.rows.novelty).all() and frame.rows.cell.min() >= 1


def test_artefacts_say_how_many_training_rows_they_know(folder: Path) -> None:
    manifest = json.loads((folder / "art" / "artefacts.json").read_text())
    assert manifest["provenance"]["training_rows"] == {"loan": len(features(500, 7))}


def spoil(path: Path) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["members.bits"][0] ^= np.uint64(1)
    with path.open("wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize(
    ("rows", "options", "then", "reason"),
    [
        (lambda: features(20, 7), (), spoil, "altered since it was written"),
        (lambda: features(20, 7), (), Path.unlink, "no such file"),
        (lambda: features(20, 7), (), lambda path: path.write_bytes(b"PK\3\4"), "no training set"),
        (lambda: features(20, 7), ("--model", "cars"), None, "made for the model cars"),
        (lambda: [row | {"default": 1} for row in features(20, 7)], (), None, "did not find the fields default"),
        (lambda: [row | {"term": "long"} for row in features(20, 7)], (), None, "field term: expected a number"),
        (lambda: [row | {"purpose": 3} for row in features(20, 7)], (), None, "field purpose: expected a category"),
    ],
)
def test_sets_are_refused_with_the_reason(
    folder: Path,
    tmp_path: Path,
    rows: Callable[[], list[Row]],
    options: Sequence[str],
    then: Callable[[Path], Any] | None,
    reason: str,
) -> None:
    """With the secrets of the artefacts, so that nothing else is wrong with them."""
    secrets = folder / "art" / "secrets"
    config = tmp_path / "probewatch.toml"
    config.write_text(f'[secrets]\ndirectory = "{secrets}"\n')
    made = tmp_path / "some.set"
    file = write_csv(tmp_path / "some.csv", rows())
    done = call("training-set", file, "--out", made, "--config", config, *options)
    assert done.exit_code == 0, done.output
    if then is not None:
        then(made)
    words = ("calibrate", folder / "log.jsonl", "--out", tmp_path / "art", "--config", config, "--training-set", made)
    refused = call(*words)
    assert refused.exit_code == 2 and reason in refused.output and "some.set" in refused.output
    assert not (tmp_path / "art" / "artefacts.json").exists()


def test_a_set_of_another_seed_is_refused(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / "elsewhere" / "train.set"
    assert call("training-set", write_csv(tmp_path / "t.csv", features(9, 7)), "--out", made).exit_code == 0
    refused = call("calibrate", folder / "log.jsonl", "--out", tmp_path / "art", "--training-set", made)
    assert refused.exit_code == 2 and "made with another projection seed" in refused.output


def test_files_of_every_kind_give_the_same_set(tmp_path: Path) -> None:
    rows = [{"a": 1.5, "b": "x", "c": True}, {"a": -2.0, "b": "y", "c": None}, {"a": None, "b": "x", "c": False}]
    plain = "".join(json.dumps(row) + "\n" for row in rows)
    records = "".join(json.dumps({"ts": 0, "model": "m", "features": row, "prompt": "…"}) + "\n" for row in rows)
    others = json.dumps({"model": "other", "features": {"z": 1}}) + "\n"
    table = "\ufeffa,b,c\n1.50,x,True\n-2,y,\nNaN,x,false\n"
    sets = [
        made(tmp_path / "plain.jsonl", plain),
        made(tmp_path / "packed.jsonl.gz", gzip.compress(plain.encode())),
        made(tmp_path / "records.jsonl", records),
        made(tmp_path / "several.jsonl", records + others, model="m"),
        made(tmp_path / "table.csv", table),
        made(
            tmp_path / "wide.csv",
            table.replace(",c", ",c,d").replace("e\n", "e,7\n").replace("y,\n", "y,,8\n"),
            "",
            "d",
        ),
    ]
    for one in sets[1:]:
        assert (one.layout, one.rows) == ({"fields": {"a": "number", "b": "category", "c": "number"}}, 3)
        assert np.array_equal(one.bits, sets[0].bits)
    assert [one.model for one in sets] == ["", "", "m", "m", "", ""]
    stored = read_set(tmp_path / "out.set", SEED)
    assert np.array_equal(stored.bits, sets[0].bits) and stored.rows == 3


def test_embeddings_in_any_form_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20, 8)).astype(np.float32)
    forms = [{"embedding": vector} for vector in vectors.tolist()]
    forms[3] = {"embedding": str(forms[3]["embedding"])}  # type: ignore[dict-item]
    found = made(tmp_path / "e.jsonl", "".join(json.dumps(form) + "\n" for form in forms))
    encoder = EmbeddingEncoder(8, 0.3, SEED)
    assert (found.kind, found.layout, found.rows) == ("embedding", {"dim": 8}, 20)
    assert found.lookup(encoder).contains(encoder.encode(list(vectors))).all()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("t.jsonl", '{"a": 1}\n{"a": [5550123]}\n', "t.jsonl:2: a: expected a number, a string, true, false or null"),
        ("t.jsonl", '{"a": 1}\n\n{"features": {"b": {"x": 5550123}}}\n', "t.jsonl:3: b: expected a number"),
        ("t.jsonl", '{"a": 1}\n{"a": 5550123\n', "t.jsonl:2: line: expected an object of features"),
        ("t.jsonl", "[1, 2]\n", "t.jsonl:1: line: expected an object of features"),
        ("t.jsonl", "", "expected rows with a value; got none"),
        ("t.jsonl", '{"a": null}\n', "expected rows with a value; got none"),
        ("t.jsonl", TWO_MODELS, "(--model NAME); got 2 models"),
        ("t.jsonl", '{"a": 1}\n{"embedding": [1, 2]}\n', "2: line: expected features, as in the first; got embedding"),
        ("t.jsonl", '{"embedding": [1, 2]}\n{"embedding": [1]}\n', "t.jsonl:2: embedding: expected 2 numbers"),
        ("t.jsonl", '{"embedding": [1, 2]}\n{"embedding": [0, 0]}\n', "t.jsonl:2: embedding: expected finite"),
        ("t.csv", "a,b\n1,2\n5550123\n", "t.csv:3: line: expected 2 cells; got 1 of them"),
        ("t.csv", "a,a\n1,2\n", "t.csv:1: header: expected distinct names"),
        ("t.csv", "", "t.csv:1: header: expected distinct names"),
        ("t.csv", b"a,b\n\xff5550123,1\n", "expected CSV in UTF-8"),
        ("t.xlsx", "", "expected .jsonl, .jsonl.gz, .jsonl.zst, .csv; got another kind of file"),
    ],
)  # fmt: skip
def test_errors_name_place_field_expected_and_got(tmp_path: Path, name: str, text: str | bytes, expected: str) -> None:
    with pytest.raises(SourceError) as raised:
        made(tmp_path / name, text)
    assert expected in str(raised.value) and "5550123" not in str(raised.value)
    assert not (tmp_path / "out.set").exists()


def test_a_field_to_leave_out_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--leave-out: expected fields of this file; got typo"):
        made(tmp_path / "t.csv", "a,b\n1,2\n", leave_out=["b", "typo"])
    with pytest.raises(SourceError, match="no such file"):
        make_set(tmp_path / "none.csv", tmp_path / "out.set", SEED, Silent(), "", ())


def test_sets_go_to_the_models_that_they_fit(tmp_path: Path) -> None:
    one = TabularEncoder(fit_table([{"a": 1.0, "b": 2.0}] * 9), SEED)
    two = TabularEncoder(fit_table([{"a": 1.0, "c": "x"}] * 9), SEED)
    encoders = {"one": one, "two": two, "faces": EmbeddingEncoder(4, 0.3, SEED)}
    shared, own = made(tmp_path / "a.csv", "a\n1\n"), made(tmp_path / "b.csv", "a,b\n1,2\n")
    named = made(tmp_path / "c.csv", "a\n1\n", model="two")
    assert assign({"s": shared}, encoders) == {"one": shared, "two": shared}
    assert assign({"s": own, "t": named}, encoders) == {"one": own, "two": named}
    with pytest.raises(SourceError, match="t: the model one has a training set already"):
        assign({"s": own, "t": shared}, encoders)
    with pytest.raises(SourceError, match=r"s: model faces: expected embedding rows.*s: model two: "):
        assign({"s": own}, {"two": two, "faces": encoders["faces"]})
