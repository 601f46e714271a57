"""MITRE ATLAS 5.6.0: the techniques that detectors declare. Names and ids as in its `dist/ATLAS.yaml`."""

from typing import NamedTuple

VERSION = "5.6.0"


class Technique(NamedTuple):
    """A technique or, with `parent`, a sub-technique. tactic, parent : (id, name)."""

    id: str
    name: str
    tactic: tuple[str, str]
    parent: tuple[str, str] | None = None


_ACCESS = ("AML.TA0000", "AI Model Access")
_STAGING = ("AML.TA0001", "AI Attack Staging")
_EVASION = ("AML.TA0007", "Defense Evasion")
_EXFILTRATION = ("AML.TA0010", "Exfiltration")
_IMPACT = ("AML.TA0011", "Impact")
_CRAFT = ("AML.T0043", "Craft Adversarial Data")
_LEAK = ("AML.T0024", "Exfiltration via AI Inference API")

API_ACCESS = Technique("AML.T0040", "AI Model Inference API Access", _ACCESS)
"""Every alert about a client has it, behind those of its detector."""
OPTIMIZATION = Technique("AML.T0043.001", "Black-Box Optimization", _STAGING, _CRAFT)
MODIFICATION = Technique("AML.T0043.003", "Manual Modification", _STAGING, _CRAFT)
VERIFICATION = Technique("AML.T0042", "Verify Attack", _STAGING)
EVASION = Technique("AML.T0015", "Evade AI Model", _EVASION)
TRAINING_DATA_MEMBERSHIP = Technique("AML.T0024.000", "Infer Training Data Membership", _EXFILTRATION, _LEAK)
INVERSION = Technique("AML.T0024.001", "Invert AI Model", _EXFILTRATION, _LEAK)
MODEL_EXTRACTION = Technique("AML.T0024.002", "Extract AI Model", _EXFILTRATION, _LEAK)
REPLICATION = Technique(
    "AML.T0005.001", "Train Proxy via Replication", _STAGING, ("AML.T0005", "Create Proxy AI Model")
)
QUERIES = Technique("AML.T0034.000", "Excessive Queries", _IMPACT, ("AML.T0034", "Cost Harvesting"))
EROSION = Technique("AML.T0031", "Erode AI Model Integrity", _IMPACT)
