"""`make run`: from nothing to two attackers caught, in under three minutes. Writes out/demo."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator

from aiokafka.errors import KafkaError

from examples.demo import report
from examples.demo.processes import ChildError, Children
from examples.demo.run import OUT, PARTITIONS, Demo
from examples.demo.tape import Tape
from examples.demo.view import View, as_table
from models import private
from streams.config.config import PREFIX
from streams.kafka import topics
from streams.kafka.embedded import EmbeddedBroker, EmbeddedError

INTERRUPTED = 130
EXPECTED = (ChildError, EmbeddedError, TimeoutError, KafkaError, topics.TopicsError)
"""What can go wrong outside this program."""


def main() -> int:
    """0 : both attackers throttled, no benign client, every alert valid. 1 : not so. 130 : interrupted."""
    warnings.simplefilter("ignore")  # ART warns of every framework that is not installed
    view = View()
    shutil.rmtree(OUT, ignore_errors=True)
    private.folder(OUT)
    for name in [name for name in os.environ if name.startswith(PREFIX) and name != "PROBEWATCH_KERNEL_CACHE"]:
        del os.environ[name]  # the settings of an installation of the user's own would win over the demo's
    try:
        return asyncio.run(_demo(view))
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.say("interrupted; every process of the demo has ended")
        return INTERRUPTED
    except Exception as error:
        causes = list(_causes(error))
        if not all(isinstance(cause, EXPECTED) for cause in causes):
            raise
        for cause in causes:
            view.fail(f"{type(cause).__name__}: {cause}" if str(cause) else f"waited too long; see {OUT}/*.log")
        return 1


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors inside nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


async def _demo(view: View) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with contextlib.AsyncExitStack() as stack:
        children = Children(OUT)
        if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
            demo = Demo(view, bootstrap, children, prefix=f"demo-{time.strftime('%Y%m%dT%H%M%S')}.")
            view.say(f"broker {bootstrap}, topics {demo.live_topic} and others; deleted at the end")
            stack.push_async_callback(demo.delete_topics)
        else:
            broker = stack.enter_context(EmbeddedBroker())
            view.say(str(broker))
            demo = Demo(view, broker.bootstrap, children)
        stack.enter_context(children)
        stack.callback(demo.attacks.stop)
        return await _play(view, demo)


async def _play(view: View, demo: Demo) -> int:
    view.say("a loan-decision model, trained on 3,000 real loans; 7,000 others apply. First a benign day is recorded")
    await demo.make_topics()
    day = await demo.record_day()
    view.say("probewatch calibrate ... (the first time its kernels are compiled: half a minute)")
    await demo.calibrate(day)
    view.say("probewatch run ...")
    await demo.start_worker()
    view.say("ready, and the gateway obeys it. Live traffic, and two attackers among it:")
    written = demo.config.topics
    taped = [demo.live_topic, written.throttle, written.alerts, written.dlq]
    async with Tape(demo.config.kafka.bootstrap, taped, PARTITIONS) as tape:
        await demo.go_live(tape)
        found = demo.finish(tape)
        rows = demo.rows(tape)
    view.say("probewatch replay ...")
    replay = await demo.replayed_same()
    view.console.print()
    view.console.print(as_table(rows))
    view.console.print()
    for verdict in demo.attacks.verdicts():
        view.say(verdict)
    latency = found["latency_ms"]
    view.say(f"log record to throttle event: p50 {latency['p50']} ms, p99 {latency['p99']} ms")
    view.say(f"{found['alerts']} alerts, {found['alerts_valid']} valid OCSF; replaying requests.jsonl {replay}")
    wrong = report.failures(found)
    view.say("[green]ok[/]" if not wrong else f"[red]{'; '.join(wrong)}[/]")
    view.say(f"written: {OUT}/requests.jsonl, alerts.jsonl, throttle.jsonl, summary.json")
    view.say(f"to look at, in any browser: {OUT}/replay/report.html")
    if sys.stdin.isatty() and view.console.is_terminal:
        await _stay(view, demo)
    return 1 if wrong else 0


async def _stay(view: View, demo: Demo) -> None:
    """Leave everything running until Enter, Ctrl-C or SIGTERM; the run's own result stands."""
    view.say(f"the gateway answers at {demo.url}/v1/score, metrics at http://127.0.0.1:{demo.web_port}/metrics")
    view.say("staying up; Enter or Ctrl-C ends it")
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, entered.set)
    try:
        while not entered.is_set():
            demo.children.check()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entered.wait(), 1)
    except asyncio.CancelledError:
        view.say("ending")
    finally:
        loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    sys.exit(main())
