"""Alerts in the words of SIEMs that do not read OCSF: a line each, made from the alert alone (docs/formats/siem.md)."""

from collections.abc import Callable, Mapping

from streams.analyst.events import Alert
from streams.analyst.siem import cef, ecs, splunk

FORMATS: Mapping[str, Callable[[Alert], bytes]] = {"ecs": ecs.render, "hec": splunk.render, "cef": cef.render}
"""An alert to one line, without its end. The same alert gives the same bytes."""
