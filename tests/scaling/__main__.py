"""`make scaling`: takeovers with the state of 100,000 clients, and where the time of loading it goes."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from streams.config.config import Config
from tests.faults.workers import start_server
from tests.kafka_broker import apache_kafka
from tests.kafka_config import kafka_config
from tests.pipeline import Calibrated, calibrated
from tests.scaling import load
from tests.scaling.changes import judges
from tests.scaling.population import prepare
from tests.scaling.takeover import Takeover

CLIENTS = 100_000
SESSION_S = 10.0
GRACE_S = 5.0
ROUND_S = 20.0
AGE_ROUNDS = 3
"""For so long the state is rewritten before anything changes: what is superseded is read too."""

OUT = Path("out/scaling")
PAGE = Path("docs/reliability.md")
MARKS = "<!-- takeovers: begin -->", "<!-- takeovers: end -->"
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    clients: Annotated[int, typer.Option(help="Whose state there is.")] = CLIENTS,
    write_docs: Annotated[bool, typer.Option("--write-docs", help="Put the tables into docs/reliability.md.")] = False,
) -> None:
    """Judges join, leave and are killed on an Apache Kafka of its own. Writes out/scaling/scaling.json.

    Exit code 1 if a partition was without an owner for longer than a session and five seconds.
    """
    with apache_kafka() as bootstrap, tempfile.TemporaryDirectory(prefix="probewatch-scaling-") as name:
        folder = Path(name, "artefacts")
        folder.mkdir()
        fitted = calibrated(folder)
        start_server(fitted)
        state = {"blocks": 64, "round_s": ROUND_S}
        plain = kafka_config(bootstrap, "scaling", state=state, topics={"partitions": 12})
        config = plain.model_copy(update={"kafka": plain.kafka.model_copy(update={"session_timeout_s": SESSION_S})})
        loaded = load.measure(config, fitted, clients)
        takeovers = asyncio.run(_takeovers(config, fitted, Path(name), clients))
    text = _text(takeovers, loaded)
    OUT.mkdir(parents=True, exist_ok=True)
    result = {"takeovers": [one._asdict() for one in takeovers], "load": loaded._asdict() | {"fill_s": loaded.fill_s}}
    (OUT / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    if write_docs:
        begin, end = MARKS
        head, rest = PAGE.read_text().split(begin)
        PAGE.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")
    raise typer.Exit(any(one.gap_s > SESSION_S + GRACE_S for one in takeovers[1:]))


async def _takeovers(config: Config, fitted: Calibrated, folder: Path, clients: int) -> list[Takeover]:
    await prepare(config, fitted, clients)
    async with judges(config, fitted, folder) as scene:
        await scene.started()
        await asyncio.sleep(AGE_ROUNDS * ROUND_S)
        await scene.join(1, 2)
        await scene.leave(2)
        await scene.join(2)
        await scene.kill(1)
    return scene.takeovers


def _text(takeovers: list[Takeover], loaded: load.Load) -> str:
    rows: list[list[Any]] = [
        ["change", "judges after it", "longest without owner, s", "partitions kept, loaded", "MB read", "recovery, s"],
        ["---"] * 6,
    ]
    for one in takeovers:
        gap = "-" if one.change == "start" else f"{one.gap_s:.1f}"
        figures = [f"{one.kept}, {one.loaded}", f"{one.loaded_mb:.0f}", f"{one.recovery_s:.1f}"]
        rows.append([one.change, one.workers, gap, *figures])
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    parts = {
        "checksum": loaded.checksum_s, "decompression": loaded.decompress_s, "msgpack": loaded.msgpack_s,
        "into arrays, with checks": loaded.fill_s - loaded.reindex_s, "index": loaded.reindex_s,
    }  # fmt: skip
    told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    size = f"{loaded.stored_mb:.0f} MB stored, {loaded.unpacked_mb:.0f} MB unpacked"
    lines += ["", f"Loading {loaded.clients:,} clients takes {loaded.whole_s:.2f} s of one core ({size}): {told} s."]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
