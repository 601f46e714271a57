"""What history did not have: an unseen category is unknown, a number is a category's text, a range is robust."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.encoders.base import Encoded
from models.encoders.table import TabularEncoder, fit_table
from models.encoders.table_reader import category_text
from streams import replay
from streams.config.config import Config
from streams.history.sources import open_sources
from tests import loan_day
from tests.pipeline import Calibrated

CASES = Path(__file__).parent / "cases"
SEED = bytes(range(32))


def row(number: int) -> dict[str, Any]:
    """Codes that people say are categories, amounts up to 499.5, and a field that one row in twenty lacks."""
    return {
        "code": str(5_000 + number % 7), "amount": number % 1_000 / 2, "flag": str(number % 2 == 0).lower(),
        **({"age": number % 50} if number % 20 else {}),
    }  # fmt: skip


ENCODER = TabularEncoder(fit_table([row(number) for number in range(4_000)], told={"code": "category"}), SEED)
PLACE = {name: place for place, name in enumerate(ENCODER.field_names)}


def encoded(**changed: Any) -> Encoded:
    return ENCODER.encode([row(3) | changed])


def odd_fields(found: Encoded) -> list[str]:
    return [name for name, place in PLACE.items() if int(found.odd[0]) >> place & 1]


def test_an_unseen_category_is_unknown_and_keeps_its_own_hash() -> None:
    known, unseen, other = encoded(), encoded(code="9999"), encoded(code="9998")
    place = PLACE["code"]
    assert odd_fields(unseen) == ["code"] and not unseen.offgrid.any() and odd_fields(known) == []
    codes = [f"new {number}" for number in range(200)]
    stands = ENCODER.standard(ENCODER.encode([row(3) | {"code": code} for code in codes]).values)[:, place]
    assert np.abs(stands).max() < 1.81, "among ordinary ones"
    places = np.unique(np.round(stands, 1))
    assert len(places) == 7 and np.diff(places).min() > ENCODER.reach, "different ones are seldom near each other"
    assert unseen.fields[0, place] not in (other.fields[0, place], known.fields[0, place])
    assert unseen.exact[0] != other.exact[0]
    typical = math.log(7) * 16
    assert abs(unseen.surprisal[0, place] - typical) < 2 < ENCODER.fitted.missing[place] - typical


def test_where_history_lacks_values_an_unseen_category_is_worth_no_more_than_a_missing_one() -> None:
    sparse = TabularEncoder(
        fit_table([{"a": float(n % 5), "b": f"b{n % 7}" if n % 3 == 0 else None} for n in range(900)]), SEED
    )
    found = sparse.encode([{"a": 1.0, "b": "new"}, {"a": 1.0, "b": None}])
    assert found.surprisal[0, 1] == found.surprisal[1, 1] and found.odd.tolist() == [2, 0]


@pytest.mark.parametrize("value", [5003, 5003.0, 5.003e3, "5003"])
def test_a_number_is_the_category_that_its_text_would_be(value: Any) -> None:
    same, found = encoded(code="5003"), encoded(code=value)
    assert all(np.array_equal(a, b) for a, b in zip(same[:-1], found[:-1], strict=True))


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (0, "0"), (-0.0, "0"), (2.5, "2.5"), (1e22, "1e+22"), (10**20, "1" + "0" * 20),
     ("5.0", "5.0"), ("True", "True"), (-7.0, "-7")],
)  # fmt: skip
def test_names_of_categories(value: Any, text: str) -> None:
    assert category_text(value) == text
    assert odd_fields(encoded(flag=True)) == odd_fields(encoded(flag="false")) == []


@pytest.mark.parametrize(
    ("changed", "odd"),
    [
        ({"amount": 900.0}, []),
        ({"amount": 1_600.0}, ["amount"]),
        ({"amount": -700.0}, ["amount"]),
        ({"amount": None}, ["amount"]),
        ({"age": None}, []),
        ({"age": 1e300, "code": "new"}, ["age", "code"]),
    ],
)
def test_odd_is_what_history_did_not_have(changed: dict[str, Any], odd: list[str]) -> None:
    assert sorted(odd_fields(encoded(**changed))) == sorted(odd)


def test_few_rows_do_not_widen_what_is_ordinary() -> None:
    rows = [row(number) for number in range(4_000)]
    wild = [one | {"amount": 1e9} if number % 200 == 0 else one for number, one in enumerate(rows)]
    before, after = fit_table(rows), fit_table(wild)
    assert after.high[PLACE["amount"]] < 1.1 * before.high[PLACE["amount"]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    return loan_day.calibrated(tmp_path_factory.mktemp("demo"))


@pytest.mark.parametrize("name", ["known_categories", "new_category", "other_case"])
def test_ordinary_rows_of_one_client_are_nothing(demo: Calibrated, name: str) -> None:
    """Twenty-four unrelated rows: with known categories, a new one in each, and all spelt otherwise."""
    config, path = Config(), CASES / f"ordinary_{name}.jsonl"
    outcome = replay.replay(replay.Plan(open_sources([str(path)], config), config, demo.artefacts, demo.secrets))
    assert outcome.summary["rows"] == len(path.read_text().splitlines()) == 24 and not outcome.rejects
    assert outcome.events == []
