"""Checks of an installation: what is wrong and how to fix it. Each check builds on the ones before it."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from detector.frame import RowFrame
from models.artefacts import manifest
from models.artefacts.store import ArtefactError, Artefacts, load_artefacts
from streams.adapters import Formats
from streams.config.config import Config
from streams.config.keys import ConfigError
from streams.fit import certify
from streams.kafka import clients, topics
from streams.kafka.acl import Role, grant, principals, rights
from streams.kafka.acl_check import RightsCheck, refusal, standings
from streams.kafka.broker import Features, log_ends, probe
from streams.ops import raw_topics
from streams.ops.checks import Check
from streams.secrets.load import (
    FOLDER,
    Secrets,
    SecretsError,
    load_secrets,
    load_settings,
    readable_by_others,
    secret_files,
    trusted_keys,
)
from streams.sketch.shares import REMEDY, Share, Shares
from streams.wire import frames

NEWEST_MESSAGES = 500
"""Of each partition of `requests`."""

ROWS_MIN = 1_000
"""Of a model, before anything is said about its clients."""


def examine(file: Path | None, role: Role = "worker") -> list[Check]:
    """Every check that makes sense after the ones before it. role : whose rights the configured user should have."""
    try:
        config = load_settings(file)
    except (ConfigError, SecretsError) as error:
        return [Check("configuration", "fault", line, "see docs/configuration.md") for line in str(error).splitlines()]
    found = [Check("configuration", "ok", f"hash {config.hash}, policy {config.policy.mode}", ""), _formats(config)]
    found += _secrets_and_artefacts(config)
    found += asyncio.run(_broker(config, role))
    return found


def _formats(config: Config) -> Check:
    try:
        formats = Formats(config)
    except ConfigError as error:
        return Check("log formats", "fault", str(error), "set input.formats; see docs/formats/requests.md")
    return Check("log formats", "ok", ", ".join(f"{topic} {formats.of(topic).name}" for topic in config.topics.raw), "")


def _secrets_and_artefacts(config: Config) -> Iterator[Check]:
    secrets: Secrets | None = None
    try:
        secrets = load_secrets(config)
        yield Check("secrets", "ok", f"pseudonym key {secrets.key_id} and projection seed", "")
    except SecretsError as error:
        where, _, fix = str(error).partition("; ")
        made = config.artefacts / FOLDER
        yield Check("secrets", "fault", where, f"set secrets.directory to {made}" if made.is_dir() else fix)
    for path in secret_files(config):
        if readable_by_others(path):
            yield Check("secrets", "warning", f"{path} can be read by others", f"chmod 600 {path}")
    if secrets is not None:
        yield from _artefacts(config, secrets)


def _artefacts(config: Config, secrets: Secrets) -> Iterator[Check]:
    fix = f"probewatch calibrate SOURCE... --out {config.artefacts}"
    try:
        fitted = load_artefacts(config.artefacts, secrets.projection_seed, trusted_keys(config))
    except (ArtefactError, SecretsError) as error:
        yield Check("artefacts", "fault", str(error), fix)
        return
    models = ", ".join(sorted(fitted.models))
    unknown = sorted(set(config.models) - set(fitted.models))
    if unknown:
        finding = f"configured but not calibrated: {', '.join(unknown)}; there are {models}"
        yield Check("artefacts", "warning", finding, fix)
    else:
        yield Check("artefacts", "ok", f"hash {fitted.hash}, models {models}", "")
    if not config.secrets.public_keys:
        finding = f"any signer with its key in {config.artefacts / manifest.OWN_KEY} is trusted"
        yield Check("signature", "warning", finding, "set secrets.public_keys; `probewatch verify DIR` prints the key")
    yield from _certificate(config, fitted)


def _certificate(config: Config, fitted: Artefacts) -> Iterator[Check]:
    wrong = certify.standing(config.artefacts, fitted)
    for finding in wrong:
        yield Check("certificate", "warning", finding, "calibrate on history like today's; see docs/certificates.md")
    if fitted.certificate is None or wrong:
        return
    found = certify.last_check(config.artefacts, fitted)
    checked = f"held on history up to {found.last}" if found is not None else "not checked on newer history yet"
    fix = "" if found is not None else f"probewatch certify-check SOURCE... --artefacts {config.artefacts}"
    yield Check("certificate", "ok", f"{fitted.certificate.id}, {checked}", fix)


async def _broker(config: Config, role: Role) -> list[Check]:
    try:
        features = await probe(config.kafka)
    except (KafkaError, OSError) as error:
        finding = await refusal(config.kafka) or f"{config.kafka.bootstrap}: {type(error).__name__}"
        return [Check("broker", "fault", finding, "start it, or set kafka.bootstrap and the security keys of [kafka]")]
    found = [_features(config, features), *await _rights(config, role), *await _topics(config)]
    if any(check.state == "fault" for check in found):
        return found
    raw = await raw_topics.examine(config) if role == "worker" else []
    return [*found, *raw, *await _shared_ids(config, features)]


def _features(config: Config, features: Features) -> Check:
    finding = f"{features.name} at {config.kafka.bootstrap}"
    if features.idempotence:
        return Check("broker", "ok", finding, "")
    return Check(
        "broker", "warning", f"{finding}: in memory, no idempotence", "use Apache Kafka for anything but a trial"
    )


async def _rights(config: Config, role: Role) -> list[Check]:
    """What the role lacks is a fault, what the user has beyond it a warning. Nothing of a broker that cannot tell."""
    try:
        found = await standings(config, rights(config)[role])
    except KafkaError as error:
        return [Check("rights", "fault", f"{role}: {type(error).__name__}", "see docs/security.md")]
    lacking = [standing for standing in found if standing.missing]
    if lacking:
        return [Check("rights", "fault", standing.lack, _grant(config, role, standing)) for standing in lacking]
    surplus = sorted({name for standing in found for name in standing.surplus})
    if surplus:
        finding = f"more than {role} needs: {', '.join(surplus)}"
        return [Check("rights", "warning", finding, "turn on an authorizer, or take them back; see docs/security.md")]
    return [Check("rights", "ok", f"those of {role}, and no more", "")] if found else []


def _grant(config: Config, role: Role, standing: RightsCheck) -> str:
    user = config.kafka.sasl_username if config.kafka.security_protocol.startswith("SASL_") else None
    named: dict[str, str] = {role: f"User:{user}"} if user else {}
    return grant(config, principals(config, named)[role], [standing.right._replace(operations=standing.missing)])


async def _topics(config: Config) -> list[Check]:
    problems = await topics.check(config)
    if not problems:
        return [
            Check("topics", "ok", f"all there; {config.topics.requests} has {config.topics.partitions} partitions", "")
        ]
    return [Check("topics", "fault", problem, _fix(problem)) for problem in problems]


async def _shared_ids(config: Config, features: Features) -> list[Check]:
    """One id that carries much of a model's traffic, in the newest messages of `requests`."""
    shares = Shares((*config.policy.shared_clients, *config.input.registry))
    places = [TopicPartition(config.topics.requests, number) for number in range(config.topics.partitions)]
    found: list[Share | None] = []
    async with clients.reader(config) as consumer:
        ends, begins = await log_ends(consumer, places, features), await consumer.beginning_offsets(places)
        for place in places:
            begin = max(begins[place], ends[place] - NEWEST_MESSAGES)
            consumer.assign([place])
            consumer.seek(place, begin)
            while await consumer.position(place) < ends[place]:
                for records in (await consumer.getmany(place, timeout_ms=1_000)).values():
                    for record in records:
                        with contextlib.suppress(frames.FrameError):
                            frame = frames.decode(record.value or b"", record.partition, record.offset)
                            found.append(shares.add(frame) if isinstance(frame, RowFrame) else None)
    newest = {(one.model, one.client): one for one in (*found, *shares.rest(ROWS_MIN)) if one is not None and one.large}
    if not newest:
        return [Check("shared ids", "ok", "no undeclared client carries much of a model's traffic", "")]
    return [
        Check("shared ids", "warning", f"{one.client} carries {one.share:.0%} of the traffic of {one.model}", REMEDY)
        for one in newest.values()
    ]


def _fix(problem: str) -> str:
    if "no such topic" in problem:
        return (
            "probewatch topics create (the gateways' own topics: make them as their logs need, or --raw-partitions N)"
        )
    if problem.endswith((topics.UNSEEN, topics.UNSHOWN)):
        return "probewatch topics acls"
    if "topics.partitions" in problem:
        return "set topics.partitions to what there is, or start with new topics; partitions cannot be changed in place"
    return "kafka-configs --alter --entity-type topics --entity-name TOPIC --add-config KEY=VALUE"
