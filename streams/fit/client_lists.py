"""Files that list clients: declared classes, and clients to exclude from a calibration."""

import csv
import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from models.artefacts.certificate import Removed
from models.pseudonym import client_of
from models.rows import CLASSES, U64
from streams.config.config import Config
from streams.config.input import PSEUDONYM
from streams.history.base import SourceError
from streams.secrets.load import Secrets
from streams.sketch.identity import pseudonym_of

REASON_UNSAID = "no reason given"
HEADINGS = ("client_id", "client")


class Removal(NamedTuple):
    """Clients to exclude: reasons by client key."""

    reasons: Mapping[int, str]

    def found(self, clients: U64) -> Removed:
        """The entry in the certificate. clients : of the history, once each, including removed ones."""
        present = [reason for key, reason in self.reasons.items() if key in set(clients.tolist())]
        return Removed(len(self.reasons), len(present), dict(sorted(Counter(present).items())))


NO_REMOVAL = Removal({})


def with_classes(config: Config, file: Path | None, secrets: Secrets) -> Config:
    """The configuration with a file's classes on top of the registry. Raises SourceError."""
    if file is None:
        return config
    declared = {}
    for client, client_class in _pairs(file).items():
        if client_class not in CLASSES:
            raise SourceError(f"{file}: {client}: expected one of {', '.join(CLASSES)}; got {client_class!r}")
        declared[_pseudonym(client, secrets)] = client_class
    registry = {**config.input.registry, **declared}
    return config.model_copy(update={"input": config.input.model_copy(update={"registry": registry})})


def removal(file: Path | None, secrets: Secrets) -> Removal:
    """Clients to exclude: one a line, the reason in the second column. Raises SourceError."""
    if file is None:
        return NO_REMOVAL
    pairs = _pairs(file)
    return Removal({client_of(_pseudonym(client, secrets)): why or REASON_UNSAID for client, why in pairs.items()})


def _pseudonym(client: str, secrets: Secrets) -> str:
    if PSEUDONYM.fullmatch(client) and not client.startswith(f"{secrets.key_id}-"):
        raise SourceError(f"{client}: a pseudonym of another key, expected {secrets.key_id}; give the client id")
    return pseudonym_of(client, secrets)


def _pairs(file: Path) -> dict[str, str]:
    """Client -> second column, "" if there is none. .toml and .json: a table of them; anything else: CSV."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix in (".toml", ".json"):
            table = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
            if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
                raise ValueError("expected one table, client to text")
            return table
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    rows = [row for row in rows if row and row[0] and not row[0].startswith("#")]
    if rows and rows[0][0].lower() in HEADINGS:
        rows = rows[1:]
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}
