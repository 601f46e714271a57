"""Contents as one HTML file without external resources: text and tables plain, figures and plotly.js compressed."""

import base64
import gzip
from collections.abc import Sequence
from importlib.resources import files

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from detector.events.escape import printable
from detector.events.finding import LEVELS
from streams.report.contents import Contents
from streams.report.plots import Json, PlotFigure

COMPRESSION = 9
LEGEND_LINE, LEGEND_COLUMNS = 22, 2


def page(contents: Contents) -> bytes:
    """UTF-8. Text from logs is escaped and made printable."""
    from plotly.offline import get_plotlyjs  # slow to import, and only needed here

    environment = Environment(
        loader=PackageLoader("streams.report", "parts"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_printable,
    )  # fmt: skip
    drawn = [*contents.figures, *(figure for detail in contents.details for figure in detail.figures)]
    parts = files("streams.report") / "parts"
    text = environment.get_template("page.html").render(
        contents=contents,
        detailed={detail.incident.uid for detail in contents.details},
        levels=LEVELS,
        style=(parts / "page.css").read_text("utf-8"),
        script=(parts / "page.js").read_text("utf-8"),
        plotly=packed(get_plotlyjs().encode()),
        figures=packed(specs(drawn)),
    )
    return text.encode()


def _printable(value: object) -> object:
    """Makes values from logs printable; markup of the templates stays as it is."""
    return printable(value, "\n") if type(value) is str else value


def specs(figures: Sequence[PlotFigure]) -> bytes:
    """JSON: id -> data and layout. `narrow` in its meta: the height where each legend entry takes a line."""
    return msgspec.json.encode({figure.id: {"data": figure.data, "layout": _with_legend(figure)} for figure in figures})


def _with_legend(figure: PlotFigure) -> Json:
    entries = len(figure.data) if len(figure.data) > 1 else 0
    height, lines = figure.layout["height"], -(-entries // LEGEND_COLUMNS)
    return {
        **figure.layout, "height": height + LEGEND_LINE * lines, "meta": {"narrow": height + LEGEND_LINE * entries},
    }  # fmt: skip


def packed(text: bytes) -> str:
    """gzip in base64, for a browser's DecompressionStream. The same bytes for the same text."""
    return base64.b64encode(gzip.compress(text, COMPRESSION, mtime=0)).decode()
