"""`python -m bench.detection`: who finds which attack, after how many requests, at the same false alarms."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before scikit-learn is loaded: forked workers hang in a pool of their parent's

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.detection import attackers, datasets, report
from bench.detection.methods import REGISTRY
from bench.detection.run import FULL, QUICK, Settings, run
from streams.progress import Bars

OUT = Path("out/bench")
PAGE = Path("docs/benchmark.md")
NAMES = ", ".join(method.name for method in REGISTRY)


def main(
    full: Annotated[bool, typer.Option("--full", help="More clients, all disguises, slow methods too.")] = False,
    dataset: Annotated[str, typer.Option(help="lending, or taiwan (needs PROBEWATCH_DATA).")] = "lending",
    families: Annotated[str, typer.Option(help="Families of attacks, with commas; all of them otherwise.")] = "",
    methods: Annotated[str, typer.Option(help=f"Methods to compare with, with commas: {NAMES}.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of tables.")] = False,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the tables into docs/benchmark.md.")] = False,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="The data set and the family that nothing was tuned on. Once, at the end."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the benign clients and of the disguises.")] = 0,
) -> None:
    """Judge benign clients and real attackers with our engine and with others; write out/bench/*.json and .html."""
    known = tuple(name for name in attackers.FAMILIES if held_out or name != attackers.HELD_OUT)
    settings = Settings(
        dataset=datasets.HELD_OUT if held_out else dataset,
        scale=FULL if full else QUICK,
        families=_chosen(families, known, "family"),
        methods=_chosen(methods, tuple(method.name for method in REGISTRY), "method"),
        seed=seed,
    )
    if settings.dataset == datasets.HELD_OUT and not held_out:
        raise typer.BadParameter(f"{settings.dataset} is held out; use --held-out")
    try:
        with Bars() as bars:
            results = run(settings, bars)
    except datasets.MissingDataError as error:
        raise typer.BadParameter(str(error)) from error
    name = f"{'held-out' if held_out else settings.dataset}-{'full' if full else 'quick'}"
    report.write_json(results, OUT / f"{name}.json")
    report.write_page(results, OUT / f"{name}.html")
    if write_docs:
        command = "python -m bench.detection " + " ".join(sys.argv[1:])
        report.write_docs(results, PAGE, command, f"{datetime.now(UTC):%Y-%m-%d}")
    if json:
        print((OUT / f"{name}.json").read_text(encoding="utf-8"), end="")
    else:
        console = Console()
        report.print_tables(results, console)
        console.print(f"{results['seconds']:.0f} s; {OUT / name}.json and .html")


def _chosen(text: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    chosen = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in chosen:
        if name not in known:
            raise typer.BadParameter(f"{name}: no such {what}; one of {', '.join(known)}")
    return chosen or known


if __name__ == "__main__":
    typer.run(main)
