"""A second, small door over `Gate`: for WSGI applications. It shows what a new door takes."""

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from probewatch_door.decisions import Decisions
from probewatch_door.limits import Delay, Gate, Refuse, Verdict, refuse_unclear
from probewatch_door.pseudonym import RepeatedHeaderError, header_pseudonyms
from tests.doors.contract import KEY, Answer, Ask, header_bytes

StartResponse = Callable[[str, list[tuple[str, str]]], object]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class WsgiDoor:
    """app : the application behind the door. model : what it serves. options : of `Gate`."""

    def __init__(self, app: App, decisions: Decisions, model: str, **options: Any) -> None:
        self._app = app
        self._model = model
        self._gate = Gate(decisions, **options)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        # Servers join repeated headers with commas, and write the header's bytes as latin-1 (PEP 3333).
        values = environ["HTTP_X_CLIENT_ID"].encode("latin-1").split(b",")
        try:
            clients = header_pseudonyms(values, [KEY])
        except RepeatedHeaderError:
            return self._answer(refuse_unclear(), environ, start_response)
        with self._gate.admit(clients, self._model) as verdict:
            return self._answer(verdict, environ, start_response)

    def _answer(self, verdict: Verdict, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        if isinstance(verdict, Refuse):
            phrase = HTTPStatus(verdict.status).phrase
            start_response(f"{verdict.status} {phrase}", list(verdict.headers))
            return [verdict.body]
        if isinstance(verdict, Delay):
            time.sleep(verdict.seconds)
        return list(self._app(environ, start_response))


def wsgi(decisions: Decisions, **options: Any) -> Ask:
    called: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        called.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"ok"]

    door = WsgiDoor(app, decisions, "loan", **options)

    def ask(*values: str | bytes) -> Answer:
        started: list[tuple[str, list[tuple[str, str]]]] = []
        called.clear()
        joined = b",".join(map(header_bytes, values)).decode("latin-1")
        environ = {"HTTP_X_CLIENT_ID": joined, "PATH_INFO": "/predict"}
        body = b"".join(door(environ, lambda status, headers: started.append((status, headers))))
        ((status, headers),) = started
        return Answer(int(status.split()[0]), dict(headers), body, bool(called))

    return ask
