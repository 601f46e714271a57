"""Print docs/detectors/README.md from the declarations: `make docs`."""

from detector.detectors import REGISTRY, Detector

PAGE = """# Detectors

<!-- Written by `make docs` from detector/detectors/. -->

The name in an alert is the detector whose process carried the decision. All detectors share the same evidence and
thresholds: [engine.md](../engine.md).

| detector | title of its alerts | processes |
|---|---|---|
{processes}

A process named with `_sum` adds a joint profile over a client's families: five applicants tried ten times each weigh as
much as one tried fifty times.

[drift](drift.md) is another kind of detector: it watches models, in the stage `link`, and never throttles.

## Techniques of MITRE ATLAS 5.6.0

The likeliest first. Every alert about a client also has AML.T0040 (AI Model Inference API Access). Drift of models is
AML.T0031 (Erode AI Model Integrity).

| detector | techniques |
|---|---|
{techniques}
"""


def page() -> str:
    return PAGE.format(
        processes="\n".join(f"| [{one.name}]({one.name}.md) | {one.title} | {_processes(one)} |" for one in REGISTRY),
        techniques="\n".join(f"| `{one.name}` | {_techniques(one)} |" for one in REGISTRY),
    )


def _processes(detector: Detector) -> str:
    names = [profile.name for profile in detector.profiles] + [bet.process for bet in detector.client_bets]
    return ", ".join(f"`{name}`" for name in [*names, *(count.process for count in detector.counts)])


def _techniques(detector: Detector) -> str:
    return ", ".join(f"{technique.id} {technique.name}" for technique in detector.techniques)


if __name__ == "__main__":
    print(page(), end="")
