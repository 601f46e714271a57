"""Holds a lock file against published vulnerabilities, with pip-audit: `python deploy/audit.py requirements.lock`.

Exit code 1 if a locked package is known to be vulnerable. Where the database is out of reach, or does not know one,
that is said and nothing fails: a build must not depend on somebody else's server. One package is asked about first,
so that a database out of reach is noticed with one question.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

OUT_OF_REACH = "NOT AUDITED: the database of vulnerabilities is out of reach"


class Verdict(NamedTuple):
    code: int
    lines: Sequence[str]


def packages(lock: str) -> Iterator[str]:
    """Each package of a lock file with its hashes, as a lock file of its own. Raises ValueError if one has none."""
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock)[1:]:
        if "--hash=sha256:" not in block:
            raise ValueError(f"{block.split()[0]}: locked without a hash")
        yield block


def verdict(report: Any) -> Verdict:
    """What pip-audit's report means. report : its JSON, or None if it gave none."""
    found = report["dependencies"] if report else []
    audited = [package for package in found if "skip_reason" not in package]
    if not audited:
        return Verdict(0, [OUT_OF_REACH])
    faults = [
        f"VULNERABLE: {package['name']} {package['version']}: {fault['id']}, mended in {_versions(fault)}"
        for package in audited
        for fault in package["vulns"]
    ]
    unknown = [package["name"] for package in found if "skip_reason" in package]
    lines = faults + ([f"not known to the database: {', '.join(unknown)}"] if unknown else [])
    return Verdict(1 if faults else 0, [*lines, f"{len(audited)} packages audited, {len(faults)} faults"])


def _versions(fault: Any) -> str:
    return ", ".join(fault["fix_versions"]) or "no version yet"


def ask(lock: str) -> Any:
    """pip-audit's report on a lock file, None if it gave none."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(lock)
        file.flush()
        words = ["-r", file.name, "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run([sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        print(done.stderr.strip().rpartition("\n")[2], file=sys.stderr)
        return None


def audit(lock: str) -> Verdict:
    each = list(packages(lock))
    first = verdict(ask(each[0]))
    return first if first.lines == [OUT_OF_REACH] else verdict(ask("".join(each)))


if __name__ == "__main__":
    code, lines = audit(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n".join(lines))
    sys.exit(code)
