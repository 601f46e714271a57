"""What is installed is locked and audited; what is shipped is listed, and runs with as little as it needs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import HANGS_S

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "deploy"))
from audit import OUT_OF_REACH, packages, verdict  # noqa: E402 a script, not a package
from pin_images import FILES, images, main, pinned  # noqa: E402

SERVICE_LOCK = ROOT / "requirements-service.lock"
CLEAN = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["3"], "aliases": []}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-service.lock", "requirements-uv.txt"])
def test_every_package_is_locked_with_hashes(lock: str) -> None:
    found = list(packages((ROOT / lock).read_text()))
    assert len(found) > (30 if lock != "requirements-uv.txt" else 0)
    assert all(re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", block) for block in found)


def test_what_ships_is_what_was_tested() -> None:
    """The service's lock holds nothing that the whole lock does not hold in the same version."""
    shipped, tested = ({block.split()[0] for block in packages((ROOT / name).read_text())} for name in _LOCKS)
    assert shipped < tested


_LOCKS = ("requirements-service.lock", "requirements.lock")


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ([CLEAN, FAULTY, SKIPPED], 1, "VULNERABLE: b 2: PYSEC-2026-1, mended in 3"),
        ([CLEAN, SKIPPED], 0, "not known to the database: c"),
        ([CLEAN], 0, "1 packages audited, 0 faults"),
        ([SKIPPED], 0, OUT_OF_REACH),
        (None, 0, OUT_OF_REACH),
    ],
)
def test_only_a_known_fault_fails_the_audit(found: Any, code: int, said: str) -> None:
    judged = verdict(None if found is None else {"dependencies": found, "fixes": []})
    assert (judged.code, said in judged.lines) == (code, True)


def test_a_package_without_a_hash_is_no_lock() -> None:
    with pytest.raises(ValueError, match="a==1: locked without a hash"):
        list(packages("a==1\n"))


def test_a_database_out_of_reach_is_said_and_fails_nothing(tmp_path: Path) -> None:
    """Nobody listens where the proxy should be."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9"}
    words = [sys.executable, str(ROOT / "deploy/audit.py"), str(SERVICE_LOCK)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=HANGS_S)
    assert (done.returncode, done.stdout) == (0, OUT_OF_REACH + "\n"), done.stderr


def test_the_bill_of_materials_names_all_that_ships_with_its_hashes(tmp_path: Path) -> None:
    bill = tmp_path / "sbom.json"
    (line,) = re.findall(r"^\t\$\(BIN\)/(cyclonedx-py .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = [str(Path(sys.executable).parent / "cyclonedx-py"), *line.replace("out/sbom.json", str(bill)).split()[1:]]
    subprocess.run(words, check=True, cwd=ROOT, timeout=HANGS_S, capture_output=True)
    made = json.loads(bill.read_text())
    assert made["bomFormat"] == "CycloneDX" and made["metadata"]["component"]["name"] == "probewatch"
    listed = {f"{part['name']}=={part['version']}": _hashes(part) for part in made["components"]}
    locked = {block.split()[0]: set(re.findall(r"sha256:(\w{64})", block)) for block in _service()}
    assert {name.lower() for name in listed} == {name.lower() for name in locked}
    assert all(listed[name] == locked[name] for name in listed)


def test_containers_have_little_and_publish_on_loopback_only() -> None:
    """Read as text: docker itself may not be here."""
    text = (ROOT / "docker-compose.yml").read_text()
    common = text[text.index("x-service:") : text.index("\nservices:")]
    for line in ("read_only: true", "tmpfs: [/tmp]", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert f"  {line}\n" in common
    assert re.search(r'user: "\$\{PROBEWATCH_UID:-10001\}', common)
    services = re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", text[text.index("\nservices:") :], re.MULTILINE)
    names = [name for name, body in services if "image: apache/kafka:" not in body and "<<: *service" in body]
    assert names == ["topics", "worker", "gateway"]
    assert all(port.startswith("127.0.0.1:") for port in re.findall(r'ports: \["([^"]+)"', text))
    assert not re.search(r"privileged|docker\.sock|network_mode", text)


def test_the_image_is_pinned_and_runs_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text()
    bases = {found for found in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if ":" in found}
    assert bases and all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base) for base in bases)
    assert text.index("USER 10001:10001") < text.index("ENTRYPOINT")
    assert text.count("--require-hashes") == text.count("pip install") - 1, (
        "all but our own package, without any others"
    )


def test_foreign_images_have_exact_tags_and_get_their_digests_behind_them() -> None:
    """Where the registry answers; see docs/security.md. Our own images, built here, have none."""
    texts = {name: (ROOT / name).read_text() for name in FILES}
    found = [image for text in texts.values() for image in images(text)]
    assert [image.partition(":")[0] for image in found] == ["python", "apache/kafka"]
    assert all(re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image) for image in found)
    asked: list[str] = []

    def digest_of(image: str) -> str:
        asked.append(image)
        return f"sha256:{len(asked):064x}"

    for text in texts.values():
        once = pinned(text, digest_of)
        assert all("@sha256:" in image for image in images(once))
        assert re.sub("@sha256:[0-9a-f]{64}", "", once) == re.sub("@sha256:[0-9a-f]{64}", "", text)
        assert pinned(once, lambda _: "sha256:" + "f" * 64).count("f" * 64) == len(images(text))
    assert asked == [image.partition("@")[0] for image in found]


def test_no_registry_changes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM python:3.11.14-slim-bookworm AS base\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main() == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert "@" not in (tmp_path / "Dockerfile").read_text()


def _service() -> list[str]:
    return list(packages(SERVICE_LOCK.read_text()))


def _hashes(part: Any) -> set[str]:
    told = [one for reference in part.get("externalReferences", []) for one in reference.get("hashes", [])]
    return {one["content"] for one in told if one["alg"] == "SHA-256"}
