"""Sentences about findings."""

import pytest
from hypothesis import given, settings

from detector.events.finding import Counts, Finding
from detector.events.wording import MEANINGS as PHRASES
from detector.events.wording import TITLES, explain, phrase, span
from detector.evidence import PROCESSES
from models.kernels.layout import FEATURES
from tests.findings import FINDING, FINDINGS, finding


def test_a_family_is_told_in_one_sentence() -> None:
    assert explain(FINDING).seen == (
        "17 variants of one input in 40 s; `income` took 9 values, `tenure` 4; 9 decline, 8 accept; "
        "the answer flipped 6 times"
    )


def test_evidence_names_the_leading_features() -> None:
    """Features that spoke against the attack are left out of the sentence (the alert lists them all)."""
    assert explain(FINDING).evidence == (
        "9.1 of 14.2 nats from one-field and few-field edits, 3.0 from the choice of the edited field"
    )
    assert explain(finding(contributions=())).evidence == "14.2 nats of evidence"


def test_the_budget_is_promised_only_with_a_certificate() -> None:
    promise = "at most 1 in 10,000 ordinary clients is alarmed in a day"
    assert explain(finding(certified=True)).budget == f"{promise}, certified by {FINDING.certificate}"
    conditional = explain(finding(certified=False)).budget
    assert promise not in conditional
    assert "aims at: 1 in 10,000" in conditional
    assert f"conditional: promised is 1 in 1,301, by certificate {FINDING.certificate}" in conditional
    for nothing in ({"promised": 1.0}, {"certificate": ""}):
        assert "conditional, no certificate backs it" in explain(finding(**nothing)).budget


@pytest.mark.parametrize(("budget", "share"), [(1e-2, "1 in 100 "), (1e-3, "1 in 1,000 "), (1e-5, "1 in 100,000 ")])
def test_budgets_are_told_as_one_in_so_many(budget: float, share: str) -> None:
    assert share in explain(finding(budget=budget, certified=True)).budget


def test_a_count_is_not_called_nats() -> None:
    words = explain(finding(reason="volume", process="unique", evidence_mnats=57_000, threshold_mnats=35_000))
    assert words.evidence == "57 different inputs today"
    assert "35 different inputs" in words.threshold and "nats" not in words.threshold


def test_without_a_family_the_counts_speak() -> None:
    counts = Counts(30, 29, 1, 0, 12, ("income", "age"), 1)
    assert explain(finding(family=None, counts=counts)).seen == (
        "30 rows, 29 of them different; 12 rows hold values off the grid of `income`, `age`; "
        "1 row close to the decision threshold"
    )


def test_what_a_client_did_as_a_whole_comes_before_its_families() -> None:
    """Novel inputs, records of the training set, clockwork: the largest family is beside the point."""
    counts = Counts(40, 40, 0, 3, 0, (), 12, member_rows=9, explained_rows=1, cells=27)
    assert explain(finding(reason="extraction", process="novelty", counts=counts)).seen == (
        "40 rows, 40 of them different; from 27 of the population's 64 cells; 12 rows close to the decision threshold; "
        "9 records of the training set; 1 explanation asked for"
    )
    assert explain(finding(reason="ascent", process="record")).seen.startswith("17 variants of one input")


@pytest.mark.parametrize(
    ("process", "words"),
    [("rate", "61 requests in a minute"), ("tokens", "61 thousand tokens today"), ("timing", "61.2 of 61.2 nats from")],
)
def test_volume_says_what_was_counted(process: str, words: str) -> None:
    found = finding(reason="volume", process=process, evidence_mnats=61_200, contributions=((process, 61_200),))
    assert explain(found).evidence.startswith(words)


def test_a_block_is_a_proposal_and_shadow_is_said() -> None:
    assert explain(finding(level=4)).decision.startswith("a block is proposed, for a person to confirm")
    assert explain(FINDING).decision == "held to its limits (1 request a minute) for 60 min"
    assert explain(finding(mode="shadow")).decision.endswith("gateways do not act on it")


def test_a_decision_taken_back_names_no_evidence() -> None:
    words = explain(finding(reason="person", process="person", action="lift", level=0))
    assert (words.evidence, words.threshold, words.budget) == ("", "", "")
    assert words.decision == "nothing is asked of gateways any more"


def test_the_deciding_request_is_not_earlier_than_itself() -> None:
    assert explain(FINDING).nearest == "nearest earlier requests: req-41, req-7"
    assert explain(finding(request_id="req-41")).nearest == "nearest earlier requests: req-7"
    assert explain(finding(family=None)).nearest == ""


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "under 1 s"), (999, "under 1 s"), (1_000, "1 s"), (90_000, "90 s"), (120_000, "2 min"),
        (7_200_000, "2 h"), (172_800_000, "2 days"),
    ],
)  # fmt: skip
def test_spans(ms: int, text: str) -> None:
    assert span(ms) == text


def test_every_feature_and_detector_has_words() -> None:
    own = {process.name for process in PROCESSES if not process.of_family}
    assert set(FEATURES) <= set(PHRASES)
    assert {"offgrid", "unique", "low_margin"} <= set(PHRASES) and own
    assert {process.detector for process in PROCESSES} <= set(TITLES)
    assert phrase("something_new") == "something_new"


@settings(max_examples=200, deadline=None)
@given(FINDINGS)
def test_any_finding_can_be_told(found: Finding) -> None:
    words = explain(found)
    assert words.title and words.seen and words.decision
    assert words.text().endswith(".")
    assert not found.certified or "conditional" not in words.budget
