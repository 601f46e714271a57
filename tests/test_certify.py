"""certify-check, --exclude, --classes, --cold and patient attackers, on histories that are really calibrated."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from detector.calibrate import screening
from detector.calibrate.fit import DailyMaxima, daily_maxima, fit_reference, is_fitting, select
from models.artefacts.store import Artefacts, load_artefacts
from streams import replay
from streams.cli import app
from streams.config.config import Config
from streams.fit import calibrate, certify, history
from streams.fit.client_lists import NO_REMOVAL, Removal, removal, with_classes
from streams.history.base import SourceError
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity
from tests.history import Row, benign, sweeps, write_jsonl

SECRETS = Secrets(bytes(range(32)), "k1", bytes(range(32, 64)))
IDENTITY = Identity(SECRETS.pseudonym_key, SECRETS.key_id, SECRETS.projection_seed)
CLIENTS = 2_000


def fit(folder: Path, rows: list[Row], removed: Removal = NO_REMOVAL) -> Artefacts:
    write_jsonl(folder / "history.jsonl", rows)
    sources = open_sources([str(folder / "history.jsonl")], Config())
    calibrate.calibrate(sources, folder, Config(), SECRETS, Silent(), removed=removed)
    return load_artefacts(folder, SECRETS.projection_seed)


def held_against(artefacts: Artefacts, folder: Path, *parts: list[Row]) -> certify.CertificateCheck:
    write_jsonl(folder / "other.jsonl", *parts)
    sources = open_sources([str(folder / "other.jsonl")], Config())
    return certify.check(sources, Config(), artefacts, SECRETS, Silent())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return fit(tmp_path_factory.mktemp("fitted"), benign(CLIENTS, 1))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class TestCertifyCheck:
    def test_holds_on_other_clients_of_the_same_kind(self, fitted: Artefacts, tmp_path: Path) -> None:
        found = held_against(fitted, tmp_path, benign(1_500, 2))
        assert found.holds, list(found.failures())
        consumers = [line for line in found.lines if line.name == "consumer"]
        assert [line.certified for line in consumers] == [True, True, False, False]
        assert all(line.clients == 1_500 and line.client_days > 1_500 for line in consumers)
        assert [line.chance is None for line in consumers] == [False, False, True, True]

    def test_notices_a_broken_promise_and_a_shift(self, fitted: Artefacts, tmp_path: Path) -> None:
        found = held_against(fitted, tmp_path, benign(1_000, 3), sweeps(40, 25, 4))
        assert {line.level for line in found.broken} >= {"watch", "soft"}
        assert any(moved.measure.startswith("variants") for moved in found.stale)
        said = " ".join(found.failures())
        assert "BROKEN: consumer, soft: promised 0.001" in said and "STALE: consumer" in said

    def test_notices_that_clients_are_declared_otherwise(self, fitted: Artefacts, tmp_path: Path) -> None:
        rows = [row | {"client_class": "broker"} if hash_of(row) % 5 == 0 else row for row in benign(1_000, 5)]
        found = held_against(fitted, tmp_path, rows)
        assert [moved.measure for moved in found.stale if moved.client_class == "broker"] == ["share of all clients"]

    def test_refuses_the_history_that_was_calibrated_on(self, fitted: Artefacts, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="calibrated on"):
            held_against(fitted, tmp_path, benign(CLIENTS, 1))


def hash_of(row: Row) -> int:
    return int(row["client_id"].rsplit("-", 1)[1])


def test_events_name_their_certificate(fitted: Artefacts, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "day.jsonl", sweeps(2, 40, 6))
    sources = open_sources([str(tmp_path / "day.jsonl")], Config())
    events = replay.replay(replay.Plan(sources, Config(), fitted, SECRETS)).events
    decided = [json.loads(event.value) for event in events if event.kind == "throttle"]
    assert fitted.certificate is not None
    assert {one["certificate"] for one in decided} == {fitted.certificate.id}
    assert {one["certified"] for one in decided} == {True, False}
    assert all(one["certified"] == (one["level"] <= 2) for one in decided)
    alert = json.loads(next(event.value for event in events if event.kind == "alert"))
    assert f"by certificate {fitted.certificate.id}" in alert["finding_info"]["desc"]


class TestPatientAttackers:
    """Accounts that sweep inside the calibration's window, and what a later attacker gains by them."""

    def names(self, *, fitting: bool, count: int) -> list[str]:
        names = [f"patient-{number}" for number in range(8 * count)]
        fits = is_fitting(IDENTITY.clients(names)[0]).tolist()
        return [name for name, fit in zip(names, fits, strict=True) if fit == fitting][:count]

    def history(self, names: Sequence[str]) -> list[Row]:
        own = [row | {"client_id": names[hash_of(row)]} for row in sweeps(len(names), 30, 9)]
        return benign(CLIENTS, 1) + own

    def found_after(self, artefacts: Artefacts, tmp_path: Path) -> list[int]:
        """Rows until the level that limits, of ten later sweepers; 999 for never."""
        write_jsonl(tmp_path / "day.jsonl", sweeps(10, 60, 77, day=2))
        sources = open_sources([str(tmp_path / "day.jsonl")], Config())
        plan = replay.Plan(sources, Config(), artefacts, SECRETS, plain_clients=True)
        events = replay.replay(plan).events
        first = dict.fromkeys((f"evil-{number}" for number in range(10)), 999)
        for event in reversed(events):
            decision = json.loads(event.value)
            if event.kind == "throttle" and decision["level"] >= 2:
                first[decision["client"]] = decision["trigger"]["rows_seen"]
        return list(first.values())

    def test_among_fitting_clients_they_teach_nothing(self, fitted: Artefacts, tmp_path: Path) -> None:
        """6 of them among 750: set aside, and the next one is found as fast as without them."""
        names = self.names(fitting=True, count=6)
        poisoned = fit(tmp_path, self.history(names))
        assert poisoned.certificate is not None
        assert poisoned.certificate.grounds.set_aside == 6
        assert max(self.found_after(poisoned, tmp_path)) <= max(self.found_after(fitted, tmp_path)) + 2

    def test_honest_clients_with_long_days_are_no_attackers(self, tmp_path: Path) -> None:
        """Forty that ask for two dozen amounts each, as re-quoters do, teach that some clients do."""
        rng = random.Random(3)
        people = {row["client_id"]: row for row in benign(40, 8)}
        asked = [
            row | {"ts": row["ts"] + 60 * turn, "features": row["features"] | {"amount": 50 * rng.randint(10, 400)}}
            for row in people.values()
            for turn in range(24)
        ]
        certificate = fit(tmp_path, benign(CLIENTS, 1) + asked).certificate
        assert certificate is not None
        outliers = screening._outliers(self.cautious(tmp_path)).size
        assert outliers > 4, "without outliers this tests nothing"
        assert certificate.grounds.set_aside < outliers / 2, "most are taken back"

    def cautious(self, folder: Path) -> DailyMaxima:
        model = load_artefacts(folder, SECRETS.projection_seed)
        sources = open_sources([str(folder / "history.jsonl")], Config())
        rows = history.read(sources, Config(), IDENTITY, model, Silent()).rows["loan"]
        fitting = [select(part, is_fitting(part.client)) for part in rows]
        encoder = model.models["loan"].encoder
        return daily_maxima(encoder, None, fit_reference(encoder, None, fitting, cold=True), fitting)

    def test_among_certifying_clients_they_raise_thresholds_until_a_person_judges_them(
        self, fitted: Artefacts, tmp_path: Path
    ) -> None:
        """Two of 1,250: fewer than budget times clients, at 1e-2, raise nothing; at 1e-3 the threshold is theirs. It is
        said, they are named, and judged ones are left out."""
        names = self.names(fitting=False, count=2)
        poisoned = fit(tmp_path, self.history(names))
        clean, dirty = (one.models["loan"].reference.thresholds[0] for one in (fitted, poisoned))
        assert dirty[1] < clean[1] + 3_000
        assert dirty[2] > clean[2] + 20_000
        assert max(self.found_after(poisoned, tmp_path)) > max(self.found_after(fitted, tmp_path))
        assert poisoned.certificate is not None
        assert "clients together raise the threshold of soft" in " ".join(poisoned.certificate.warnings)
        listed = (tmp_path / calibrate.HIGHEST).read_text().splitlines()
        judged = tmp_path / "judged.csv"
        judged.write_text("\n".join([listed[0], *(f"{line.split(',')[0]},red team" for line in listed[1:3])]))
        mended = fit(tmp_path, self.history(names), removal(judged, SECRETS))
        assert mended.certificate is not None
        assert mended.certificate.removed.reasons == {"red team": 2}
        assert mended.models["loan"].reference.thresholds[0, 2] == clean[2]


class TestLists:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.csv", "client_id,class\nacct-1,broker\n# a comment\nacct-2, system\n"),
            ("a.toml", 'acct-1 = "broker"\nacct-2 = "system"\n'),
            ("a.json", '{"acct-1": "broker", "acct-2": "system"}'),
        ],
    )
    def test_classes_by_client_id_or_pseudonym(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        registry = with_classes(Config(), tmp_path / name, SECRETS).input.registry
        assert sorted(registry.values()) == ["broker", "system"]
        (tmp_path / "b.csv").write_text(
            "".join(f"{client},{client_class}\n" for client, client_class in registry.items())
        )
        assert with_classes(Config(), tmp_path / "b.csv", SECRETS).input.registry == registry

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("acct-1,wholesale\n", "got 'wholesale'"),
            (f"k9-{'a' * 26},broker\n", "of another key, expected k1"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(SourceError, match=said):
            with_classes(Config(), tmp_path / "a.csv", SECRETS)

    def test_a_missing_or_broken_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("[1]")
        for name in ("absent.csv", "a.json"):
            with pytest.raises(SourceError, match=name):
                removal(tmp_path / name, SECRETS)

    def test_reasons_are_counted_for_those_who_were_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("acct-1,load test\nacct-2\nacct-3,load test\n")
        found = removal(tmp_path / "a.csv", SECRETS).found(IDENTITY.clients(["acct-1", "acct-2", "other"])[0])
        assert (found.listed, found.found) == (3, 2)
        assert found.reasons == {"load test": 1, "no reason given": 1}


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """calibrate with classes and exclusions, verify, certify-check, doctor: what they print and how they end."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(1)
    write_jsonl(tmp_path / "may.jsonl", benign(900, 1))
    write_jsonl(tmp_path / "june.jsonl", benign(600, 2, day=30))
    write_jsonl(tmp_path / "july.jsonl", benign(300, 3, day=60), sweeps(30, 20, 4, day=60))
    Path("classes.csv").write_text("".join(f"acct-1-{rng.randrange(900)},broker\n" for _ in range(20)))
    Path("judged.csv").write_text("acct-1-5,load test\nacct-1-6,load test\n")
    options = ("--classes", "classes.csv", "--exclude", "judged.csv", "--json")
    done = call("calibrate", "may.jsonl", "--out", "a", *options)
    assert done.exit_code == 0, done.output
    certificate = json.loads(done.stdout)["certificate"]
    assert certificate["removed"] == {"listed": 2, "found": 2, "reasons": {"load test": 2}}
    assert certificate["grounds"]["declared_classes"] > 0
    assert (certificate["grounds"]["first"][:10], certificate["cold"]) == ("2023-11-14", False)
    assert certificate["id"] in Path("a/certificate.md").read_text()
    assert sum(part["certifying_clients"] + part["fitting_clients"] for part in certificate["classes"]) == 898

    assert call("certify-check", "june.jsonl", "--artefacts", "a", "--classes", "classes.csv").exit_code in (0, 1)
    wrong = call("certify-check", "july.jsonl", "--artefacts", "a", "--json")
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["holds"] is False
    assert "BROKEN" in wrong.stderr and "STALE" in wrong.stderr
    monkeypatch.setenv("PROBEWATCH_ARTEFACTS", "a")
    monkeypatch.setenv("PROBEWATCH_SECRETS__DIRECTORY", "a/secrets")
    monkeypatch.setenv("PROBEWATCH_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    checks = json.loads(call("doctor", "--json").stdout)
    assert any(check["check"] == "certificate" and "BROKEN" in check["finding"] for check in checks)

    seen = call("verify", "a", "--json")
    assert seen.exit_code == 0, seen.output
    said = json.loads(seen.stdout)
    assert said["certificate"] == certificate["id"]
    Path("other.pub").write_text("ab" * 32)
    assert call("verify", "a", "--key", "other.pub").exit_code == 1
    Path("signer.pub").write_text(said["public_key"])
    assert call("verify", "a", "--key", "signer.pub").exit_code == 0
    monkeypatch.setenv("PROBEWATCH_SECRETS__PUBLIC_KEYS", "ab" * 32)
    refused = call("replay", "june.jsonl", "--out", "out", "--artefacts", "a")
    assert refused.exit_code == 2 and "not trusted here" in refused.stderr


def test_a_cold_beginning_promises_nothing_and_says_so(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "log.jsonl", benign(300, 1), sweeps(3, 60, 2))
    done = call("calibrate", tmp_path / "log.jsonl", "--out", tmp_path / "a", "--cold", "--json")
    assert done.exit_code == 0, done.output
    certificate = json.loads(done.stdout)["certificate"]
    assert certificate["cold"] is True
    levels = [level for part in certificate["classes"] for level in part["levels"]]
    assert not any(level["certified"] for level in levels)
    assert {level["promised"] for level in levels} == {level["confident"] for level in levels} == {1.0}
    assert max(level["threshold"] for level in levels) <= 16.0
    assert "WARNING: fitted without trusted history" in done.stderr


def test_the_same_history_gives_the_same_artefacts(tmp_path: Path) -> None:
    """No wall clock, no folder, no order of dictionaries: the hash is of what was fitted."""
    hashes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        hashes.append(fit(folder, benign(300, 1)).hash)
    assert hashes[0] == hashes[1]
