"""Coverage-guided fuzzing: `make fuzz`, or `python -m tests.fuzz.run [TARGET ...] [--seconds N] [--write-docs]`.

Python parts are instrumented; kernels run as ever, or with --bounds so that they check theirs (minutes to compile).
Inputs that reach new edges are kept in out/fuzz, and as few of them as reach all of it in the corpus of the repository.
An input that breaks a target ends its run and stands in out/fuzz/TARGET-crash-…: put it into the corpus, where the
suite tries it for ever.
"""

import argparse
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TARGETS = ("adapter", "frame", "block")
FOLDER = Path(__file__).parent
OUT = Path("out/fuzz")
RESULTS = OUT / "results.json"
PAGE = Path("docs/reliability.md")
BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"
LENGTH_MAX = {"adapter": 4_096, "frame": 16_384, "block": 16_384}
MEMORY_MB, SLOW_S = 2_048, 20
ROUND_S = 150
"""Then another process goes on: atheris itself grows by ten kilobytes an input, which none of ours does without it."""
PACKAGES = ("streams", "detector", "models")


class Outcome(NamedTuple):
    """One target's run. edges : of instrumented Python. findings : inputs that broke it; the first ends the run."""

    target: str
    minutes: float
    executions: int
    edges: int
    peak_mb: int
    findings: int


def fuzz_here(target: str, arguments: Sequence[str]) -> None:
    """In this process, until libFuzzer ends it."""
    import atheris

    root = (FOLDER / "../..").resolve()
    kernels = [".".join(path.relative_to(root).with_suffix("").parts) for path in root.glob("models/kernels/**/*.py")]
    with atheris.instrument_imports(include=list(PACKAGES), exclude=["models.kernels", *kernels]):
        module = importlib.import_module(f"tests.fuzz.{target}")
        importlib.import_module("tests.fuzz.world").ready()  # before the clock runs

    def check(value: bytes) -> None:
        """libFuzzer does not always get to write what raised."""
        try:
            module.check(value)
        except BaseException:
            (OUT / f"{target}-crash-{hashlib.sha1(value).hexdigest()}").write_bytes(value)
            raise

    again = f"{sys.executable} -m tests.fuzz.run --here {target}"  # what libFuzzer starts to merge
    atheris.Setup([again, *arguments], check)
    atheris.Fuzz()


def run(target: str, seconds: int, bounds: bool = False) -> Outcome:
    """In processes of their own, which a finding may end. Raises RuntimeError if one does not begin."""
    found, corpus, broken = OUT / target, FOLDER / "corpus" / target, OUT / f"{target}-"
    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_len={LENGTH_MAX[target]}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={SLOW_S}", "-reload=0"]
    limits += [f"-dict={FOLDER / 'words.dict'}", "-print_final_stats=1", f"-artifact_prefix={broken}"]
    before, told, findings = set(OUT.glob(f"{broken.name}*")), "", 0
    rounds = [min(ROUND_S, seconds - start) for start in range(0, seconds, ROUND_S)]
    for round_s in rounds:
        said = _libfuzzer(target, [f"-max_total_time={round_s}", *limits, str(found), str(corpus)], bounds)
        if "cov: " not in said:
            raise RuntimeError(f"{target}: it did not begin; see {OUT / target}.log")
        told += said
        if findings := len(set(OUT.glob(f"{broken.name}*")) - before):
            break
    if not findings:
        _libfuzzer(target, ["-merge=1", f"-max_len={LENGTH_MAX[target]}", str(corpus), str(found)])
    edges, peaks = re.findall(r"cov: (\d+)", told), re.findall(r"stat::peak_rss_mb:\s+(\d+)", told)
    executed = re.findall(r"stat::number_of_executed_units:\s+(\d+)", told)
    minutes = sum(map(int, re.findall(r"Done \d+ runs in (\d+) second", told))) / 60
    peak_mb = max(map(int, peaks), default=0)
    return Outcome(target, round(minutes, 1), sum(map(int, executed)), max(map(int, edges)), peak_mb, findings)


def _libfuzzer(target: str, arguments: Sequence[str], bounds: bool = False) -> str:
    """What it said, which also stands in out/fuzz/TARGET.log."""
    checked = {"NUMBA_BOUNDSCHECK": "1", "PROBEWATCH_KERNEL_CACHE": str((OUT / "kernels").resolve())} if bounds else {}
    command = [sys.executable, "-m", "tests.fuzz.run", "--here", target, *arguments]
    log = OUT / f"{target}.log"
    with log.open("ab") as file:
        begun = file.tell()
        subprocess.run(command, env=os.environ | checked, stdout=file, stderr=subprocess.STDOUT, check=False)
    return log.read_bytes()[begun:].decode(errors="replace")


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""
    head = "| target | minutes | executions | edges | peak, MB | findings |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {o.target} | {o.minutes} | {o.executions:,} | {o.edges:,} | {o.peak_mb:,} | {o.findings} |\n"
        for o in outcomes
    )


def write_page(text: str) -> None:
    """Between its marks in docs/reliability.md."""
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def main() -> None:
    if sys.argv[1:2] == ["--here"]:
        fuzz_here(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "60")))
    parser.add_argument("--bounds", action="store_true", help="compile kernels anew, so that they check their bounds")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE}")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"{min(unknown)}: no such target; there are {', '.join(TARGETS)}")
    OUT.mkdir(parents=True, exist_ok=True)
    outcomes = [run(target, chosen.seconds, chosen.bounds) for target in chosen.targets or TARGETS]
    known = {o["target"]: Outcome(**o) for o in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    known |= {outcome.target: outcome for outcome in outcomes}
    RESULTS.write_text(json.dumps([known[name]._asdict() for name in TARGETS if name in known], indent=1))
    print(table(outcomes), end="")
    if chosen.write_docs:
        write_page(table([known[name] for name in TARGETS if name in known]))
    if any(outcome.findings for outcome in outcomes):
        raise SystemExit(f"an input broke a target: see {OUT}")


if __name__ == "__main__":
    main()
