"""A detector that the product does not have, and a process that has it: `python -m tests.added_detector FOLDER`."""

import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

import detector.detectors as declared
from detector.detectors.atlas import VERIFICATION
from detector.detectors.base import Detector, Profile

SIGNING_KEY = bytes(range(64, 96))

HOPPER = Detector(
    "hopper",
    title="Hops of equal length",
    techniques=(VERIFICATION,),
    profiles=(
        Profile("hopper", {"step": {2: 1.0}, "equal_step": {0: 0.2, 1: 0.8}}, meaning="hops of equal length"),
        Profile("hop", {"collinear": {2: 1.0}}),
    ),
)


class Given(msgspec.Struct):
    """A log of frames, and the blocks of a process without the detector that applied the first `half` of them."""

    frames: list[bytes]
    half: int
    blocks: list[bytes]


class Result(msgspec.Struct):
    """What a process with the detector makes of it.

    first : values of events of the first half, from nothing; blocks : its state then. rest : of the second half, from
    the given blocks. led : those of the detector, once it is calibrated. off : detectors without tables before.
    """

    first: list[bytes]
    blocks: list[bytes]
    rest: list[bytes]
    led: list[bytes]
    off: list[str]
    meanings: list[str]


def main(folder: Path) -> None:
    declared.REGISTRY = (*declared.REGISTRY, HOPPER)  # before anything reads it
    from detector import engine, evidence
    from detector.trace import explanation
    from models.artefacts.reference import Reference
    from models.artefacts.signing import public_key
    from models.artefacts.store import load_artefacts
    from streams.wire import frames
    from tests import engine_cases
    from tests.scenarios import run

    def calibrated(reference: Reference) -> Reference:
        """With tables of the detector: those of a process that is there, and a shorter tail."""
        alike = {"hopper": "generic", "hop": "step", "hopper_sum": "generic_sum"}
        names = tuple(process.name for process in evidence.PROCESSES)
        places = [reference.processes.index(alike.get(name, name)) for name in names]
        families = places[: evidence.FAMILY_PROCESSES]
        tail_scale = reference.tail_scale[:, places]
        tail_scale[:, names.index("hopper")] //= 2
        return replace(
            reference,
            processes=names,
            family=np.ascontiguousarray(reference.family[..., families]),
            field=np.ascontiguousarray(reference.field[..., families]),
            tail=np.ascontiguousarray(reference.tail[:, places]),
            tail_scale=np.ascontiguousarray(tail_scale),
        )

    given = msgspec.msgpack.decode((folder / "given").read_bytes(), type=Given)
    log = [frames.decode(value, 0, offset) for offset, value in enumerate(given.frames)]
    fitted = load_artefacts(folder / "artefacts", run.SECRETS.projection_seed, (public_key(SIGNING_KEY),))
    settings = engine.EngineSettings(engine_cases.CONFIG, fitted)
    own, handed = (engine.open_partition(settings, 0) for _ in range(2))
    first = [event.value for frame in log[: given.half] for event in engine.step(own, frame)]
    blocks = [engine.dump_block(own, block) for block in range(engine_cases.CONFIG.state.blocks)]
    for value in given.blocks:
        engine.load_block(handed, value)
    rest = [event.value for frame in log[given.half :] for event in engine.step(handed, frame)]
    models = {name: replace(model, reference=calibrated(model.reference)) for name, model in fitted.models.items()}
    later = engine.EngineSettings(engine_cases.CONFIG, replace(fitted, models=models))
    state = engine.open_partition(later, 0)
    for value in blocks:
        engine.load_block(state, value)
    events = [event for frame in log[given.half :] for event in engine.step(state, frame)]
    led = [event.value for event in events if event.detector == HOPPER.name]
    processes = [place for place, process in enumerate(evidence.PROCESSES) if process.detector == HOPPER.name]
    result = Result(first, blocks, rest, led, sorted(settings.off), [explanation.meaning(place) for place in processes])
    (folder / "result").write_bytes(msgspec.msgpack.encode(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
