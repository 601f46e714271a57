"""`probewatch compare`: two replays of one history."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.terminal import print_json, say, show, speaking

if TYPE_CHECKING:
    from streams.compare import Comparison
    from streams.config.config import Config

SHOWN_EVENTS = 20
"""Differing events shown on a terminal; --json prints all of them."""

ARROWS = {"lost": "-", "new": "+", "changed": "~"}


def outputs() -> dict[str, JsonOutput]:
    from streams.compare import Comparison

    return {"compare": output("Two replays of one history, compared.", Comparison)}


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(compare)


@speaking
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of a replay.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of another replay.", show_default=False)],
    labels: Annotated[
        str,
        typer.Option(
            "--labels", metavar="PLACE", help="Verdicts from `label`, a file or `kafka`, for precision and recall."
        ),
    ] = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare two replays of one history: another configuration, another calibration, another version.

    Shows events lost, new and changed; how long clients were limited; false alarms expected and at most; by detector.

    Example: probewatch compare out/june out/june-strict --labels feedback.jsonl
    """
    from streams.analyst.labels import read_labels
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    verdicts = read_labels(labels, settings) if labels else {}
    compared(a, b, settings, verdicts, as_json, None)


def compared(a: Path, b: Path, config: "Config", labels: dict[str, Any], as_json: bool, keep: Path | None) -> None:
    import msgspec

    from streams import files
    from streams.compare import compare, read_side

    comparison = compare(read_side(a, config), read_side(b, config), labels)
    if keep is not None:
        files.write(keep, msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")
    if as_json:
        print_json(comparison)
        return
    _show_comparison(comparison)


def _show_comparison(comparison: "Comparison") -> None:
    if not comparison.same_history:
        say("WARNING: A and B read different histories, which may explain differences")
    say("A and B differ in " + (", ".join(comparison.differs) or "neither configuration, artefacts nor engine"))
    a, b = comparison.a, comparison.b
    show(
        [
            {"": "alerts", "A": a.alerts, "B": b.alerts},
            {"": "throttle records", "A": a.throttles, "B": b.throttles},
            {"": "clients limited", "A": a.throttled_clients, "B": b.throttled_clients},
            {"": "client-minutes limited", "A": round(a.client_minutes, 1), "B": round(b.client_minutes, 1)},
            {"": "enforced", "A": round(a.client_minutes_enforced, 1), "B": round(b.client_minutes_enforced, 1)},
        ],
        False,
    )  # fmt: skip
    _table([{name: getattr(kind, name) for name in kind.__struct_fields__} for kind in comparison.events])
    _table([_detector(one) for one in comparison.detectors])
    _table(
        {
            "level": left.level, "client-days": left.client_days, "A expected false": round(left.expected, 3),
            "A alarmed": left.alarmed, "A false at most": left.false_at_most,
            "B expected false": round(right.expected, 3), "B alarmed": right.alarmed,
            "B false at most": right.false_at_most,
        }
        for left, right in zip(comparison.false_alarms.a, comparison.false_alarms.b, strict=True)
    )  # fmt: skip
    if comparison.scores is not None:
        sides = (("A", comparison.scores.a), ("B", comparison.scores.b))
        _table(
            {
                "": side, "detector": one.detector or "all", "alerted": one.alerted, "labelled": one.labelled,
                "false": one.false, "precision": _share(one.precision), "recall": _share(one.recall),
            }
            for side, scores in sides
            for one in scores
        )  # fmt: skip
    differing = sorted(
        [(what, one) for what in ARROWS for one in getattr(comparison, what)], key=lambda pair: (pair[1].time, pair[0])
    )
    _table(
        {
            "": ARROWS[what], "time": one.time, "kind": one.kind, "client": one.client, "model": one.model,
            "detector": one.detector,
            "what": ", ".join(f"{change.field} {change.a} -> {change.b}" for change in getattr(one, "changes", ())),
        }
        for what, one in differing[:SHOWN_EVENTS]
    )  # fmt: skip
    if len(differing) > SHOWN_EVENTS:
        say(f"and {len(differing) - SHOWN_EVENTS:,} more; --json prints all of them")


def _detector(one: Any) -> dict[str, Any]:
    return {
        "detector": one.detector,
        "A alerts": one.a_alerts,
        "B alerts": one.b_alerts,
        "A throttles": one.a_throttles,
        "B throttles": one.b_throttles,
        "A minutes": round(one.a_client_minutes, 1),
        "B minutes": round(one.b_client_minutes, 1),
        "lost": one.lost,
        "new": one.new,
        "changed": one.changed,
    }


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _table(rows: Any) -> None:
    listed = list(rows)
    if listed:
        print()
        show(listed, False)
