"""python -m examples.loan_gateway --bootstrap HOST:PORT: train the model, then serve it."""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from examples.loan_gateway.app import build_app
from examples.loan_gateway.log import KafkaLog
from examples.loan_gateway.model import NAME as MODEL
from examples.loan_gateway.model import LoanModel, load_applications
from examples.loan_gateway.server import server
from probewatch_door.asgi import ProbewatchDoor, from_header
from probewatch_door.decisions import KafkaDecisions
from probewatch_door.pseudonym import PseudonymKey


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loan_gateway", description=__doc__)
    parser.add_argument("--bootstrap", required=True, help="Kafka, host:port")
    parser.add_argument("--topic", default="gateway-logs", help="topic of the request log")
    parser.add_argument("--host", default="127.0.0.1", help="it believes X-Client-Id: for others only behind a proxy")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--registry", type=Path, help="JSON file: client id -> broker | system")
    parser.add_argument("--pseudonym-key", type=Path, help="file of the key; without it there is no door")
    parser.add_argument("--decisions", default="probewatch.throttle-state.v1", help="topic of the decisions")
    return parser.parse_args()


def application(options: argparse.Namespace) -> Any:
    """The gateway behind its door. Neither its start nor any answer waits for Kafka."""
    registry = json.loads(options.registry.read_text()) if options.registry else {}
    training, _ = load_applications()
    log = KafkaLog(options.bootstrap, options.topic)
    followed: list[KafkaDecisions] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for decisions in followed:
                await stack.enter_async_context(decisions)
            await stack.enter_async_context(log)
            yield

    app: Any = build_app(LoanModel(training), log, registry, lifespan)
    if options.pseudonym_key:
        key = PseudonymKey.from_file(options.pseudonym_key)
        decisions = KafkaDecisions(options.bootstrap, options.decisions)
        followed.append(decisions)
        app = ProbewatchDoor(app, decisions, from_header("X-Client-Id", [key]), MODEL)
    return app


async def serve(options: argparse.Namespace) -> None:
    await server(application(options), options.host, options.port).serve()


if __name__ == "__main__":
    asyncio.run(serve(_arguments()))
