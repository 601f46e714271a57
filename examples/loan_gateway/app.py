"""The gateway's HTTP face: validate, score, answer, log. Protected from outside by a door (see __main__)."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from examples.loan_gateway import model as loans

MAX_BODY_BYTES = 16_384
BODY_S = 5.0
MAX_CLIENT_ID_CHARS = 128


class Log(Protocol):
    """Where the gateway writes its request log. An answer never waits for it."""

    connected: bool
    dropped: int
    failures: int

    @property
    def waiting(self) -> int: ...

    def write(self, client_id: str, record: bytes) -> None: ...


def build_app(
    model: loans.LoanModel, log: Log, registry: Mapping[str, str], lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """registry : client id -> class ("broker", "system"), kept by the gateway: a client cannot choose its own."""
    gateway = Gateway(model, log, registry)
    return Starlette(
        routes=[
            Route("/v1/score", gateway.score, methods=["POST"]),
            Route("/healthz", gateway.healthz, methods=["GET"]),
        ],
        lifespan=lifespan,
    )


class Gateway:
    """Handlers of one process. A request that is refused or malformed never reached the model and is not logged."""

    def __init__(self, model: loans.LoanModel, log: Log, registry: Mapping[str, str]) -> None:
        self._model = model
        self._log = log
        self._registry = registry

    async def score(self, request: Request) -> Response:
        client_id = request.headers.get("x-client-id", "")
        if not 0 < len(client_id) <= MAX_CLIENT_ID_CHARS:
            return _bad(f"header X-Client-Id: expected 1 to {MAX_CLIENT_ID_CHARS} characters")
        started = time.perf_counter()
        try:
            features = _object(await _body(request))
            label, score = self._model.decide(features)
        except loans.BadFeaturesError as error:
            return _bad(str(error))
        except TimeoutError:
            return JSONResponse({"error": f"body: not there after {BODY_S:.0f} s"}, 408, {"Connection": "close"})
        request_id = str(uuid.uuid4())
        record = {
            "schema": "probewatch.request/1",
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "client_id": client_id,
            "client_class": self._registry.get(client_id, "consumer"),
            "model": loans.NAME,
            "model_version": loans.VERSION,
            "operation": "classify",
            "features": features,
            "output": {"label": label, "score": score},
            "status": 200,
            "latency_ms": round((time.perf_counter() - started) * 1e3, 3),
        }
        self._log.write(client_id, msgspec.json.encode(record))
        return Response(
            msgspec.json.encode({"request_id": request_id, "label": label, "score": score}),
            media_type="application/json",
        )

    async def healthz(self, _: Request) -> Response:
        """200 also while Kafka is away: the gateway answers, and says what it cannot log."""
        log = {
            "connected": self._log.connected,
            "waiting": self._log.waiting,
            "dropped": self._log.dropped,
            "failures": self._log.failures,
        }
        return JSONResponse({"status": "ok", "model": loans.NAME, "log": log})


async def _body(request: Request) -> bytes:
    """Never holds more than it may be long. Raises BadFeaturesError, TimeoutError."""
    body = bytearray()
    async with asyncio.timeout(BODY_S):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise loans.BadFeaturesError(f"body: expected at most {MAX_BODY_BYTES} bytes; got more")
    return bytes(body)


def _object(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise loans.BadFeaturesError("body: expected one JSON object of features") from None


def _bad(text: str) -> Response:
    return JSONResponse({"error": text}, status_code=400)
