"""The business endpoint of the demo: people's words in, people's words out."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from examples.us_income.data import IncomePanel, load_panel
from examples.us_income.forecasting import ForecastRequest, IncomeForecast
from stlab_api.plugins import ModelInfo, load_endpoint_plugins
from tests.unit.api.fakes import FakeBackend, FakePredictor, Running, model_spec, running
from triton_client.types import TensorSpec

SPEC = model_spec(
    "income",
    inputs=(TensorSpec("history", "FP32", (-1, 48, 10)),),
    outputs=(TensorSpec("forecast", "FP32", (-1, 48, 3)),),
)
PANEL: IncomePanel = load_panel()
PLUGIN = IncomeForecast()
CODES = {"California": "CA", "New York": "NY", "Maine": "ME", "Wyoming": "WY", "Alabama": "AL"}
Incomes = dict[str, dict[int, float]]


def incomes(first: int = 2000, last: int = 2009) -> Incomes:
    places = np.flatnonzero((PANEL.years >= first) & (PANEL.years <= last))
    return {
        state: {int(PANEL.years[i]): float(PANEL.income[row, i]) for i in places}
        for row, state in enumerate(PANEL.states)
    }


def tensors(given: Incomes, **changed: Any) -> np.ndarray[Any, Any]:
    request = ForecastRequest.model_validate({"incomes": given, **changed})
    made = PLUGIN.to_tensors(request, SPEC)
    assert list(made) == ["history"]
    return made["history"]


def refusal(given: Incomes, **changed: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its words are looked at by the tests
        tensors(given, **changed)
    return str(caught.value)


def without(given: Incomes, state: str, *years: int) -> Incomes:
    left = {year: value for year, value in given[state].items() if year not in years}
    return {**given, state: left}


def test_it_is_found_for_its_model_only() -> None:
    assert [type(t) for t in load_endpoint_plugins(("toy", "income"))] == [IncomeForecast]
    assert load_endpoint_plugins(("toy",)) == []


def test_a_history_is_in_the_order_of_the_model() -> None:
    history = tensors(incomes())
    assert (history.shape, history.dtype) == ((1, 48, 10), np.float32)
    wanted = PANEL.income[:, (PANEL.years >= 2000) & (PANEL.years <= 2009)]
    assert np.array_equal(history[0], wanted)
    backwards = {s: dict(reversed(years.items())) for s, years in reversed(incomes().items())}
    assert np.array_equal(tensors(backwards)[0], wanted)


def test_states_may_be_named_as_people_name_them() -> None:
    wanted = tensors(incomes())
    by_code = {CODES.get(state, state): years for state, years in incomes().items()}
    assert not set(CODES) & set(by_code)
    assert np.array_equal(tensors(by_code), wanted)
    for change in (str.upper, str.lower, lambda name: f"  {name.replace(' ', '   ')} "):
        odd = {change(state): years for state, years in by_code.items()}
        assert np.array_equal(tensors(odd), wanted)


def test_every_state_has_its_own_code() -> None:
    codes = {
        "Arizona": "AZ", "Arkansas": "AR", "Connecticut": "CT", "Delaware": "DE", "Idaho": "ID",
        "Indiana": "IN", "Iowa": "IA", "Kansas": "KS", "Massachusetts": "MA", "Michigan": "MI",
        "Minnesota": "MN", "Mississippi": "MS", "Missouri": "MO", "Montana": "MT",
        "Nebraska": "NE", "Nevada": "NV", "New Hampshire": "NH", "North Carolina": "NC",
        "North Dakota": "ND", "Tennessee": "TN", "Texas": "TX", "Vermont": "VT",
        "Virginia": "VA", "Washington": "WA", "West Virginia": "WV", "Wisconsin": "WI",
    }  # fmt: skip
    request = ForecastRequest.model_validate({"incomes": incomes(), "states": [*codes.values()]})
    outputs = {"forecast": np.zeros((1, 48, 3), np.float32)}
    answer = PLUGIN.to_response(request, outputs, ModelInfo(name="income", version=1, alias="prod"))
    assert [one.state for one in answer.forecasts] == [*codes]


@pytest.mark.parametrize(
    ("word", "meant"), [("Californa", "California"), ("new yrok", "New York"), ("Main", "Maine")]
)
def test_an_unknown_state_gets_a_suggestion(word: str, meant: str) -> None:
    given = {(word if state == meant else state): years for state, years in incomes().items()}
    for told in (refusal(given), refusal(incomes(), states=["CA", word])):
        assert repr(word) in told
        assert f"did you mean {meant}?" in told


@pytest.mark.parametrize("word", ["", "XX", "Hawaii", "AK", "DC", "Bavaria", "42"])
def test_what_is_no_state_gets_none(word: str) -> None:
    told = refusal(incomes(), states=[word])
    assert repr(word) in told
    assert "48" in told
    assert "did you mean" not in told


def test_missing_states_are_named() -> None:
    given = incomes()
    del given["Maine"]
    assert refusal(given).startswith("Maine is missing")
    del given["Alabama"]
    assert refusal(given).startswith("Alabama and Maine are missing")
    few = {state: years for state, years in incomes().items() if state in CODES}
    told = refusal(few)
    assert "38 more are missing" in told
    assert len(told) < 300
    assert "43 more are missing" in refusal({})


def test_a_state_that_is_given_twice_is_told() -> None:
    told = refusal({**incomes(), "CA": incomes()["California"]})
    assert "California" in told
    assert "twice" in told


def test_a_gap_is_named() -> None:
    assert "Maine have a gap: 2003 is missing" in refusal(without(incomes(), "Maine", 2003))
    told = refusal(without(incomes(1990), "Maine", 2003, 2005))
    assert "Maine have a gap: 2003 and 2005 are missing" in told


def test_too_few_years_are_told() -> None:
    told = refusal(without(incomes(), "Maine", 2000))
    assert "Maine has 9 years, 2001 to 2009" in told
    assert "give 10" in told
    told = refusal({**incomes(), "Maine": {}})
    assert "Maine has no years" in told


def test_years_must_end_together() -> None:
    given = incomes(1999)
    told = refusal(without(given, "Maine", 2009))
    assert "Maine" in told
    assert "2008" in told
    assert "2009" in told


def test_of_a_longer_history_the_last_ten_years_count() -> None:
    wanted = tensors(incomes())
    assert np.array_equal(tensors(incomes(1929)), wanted)
    mixed = {**incomes(1929), "Maine": incomes()["Maine"]}
    assert np.array_equal(tensors(mixed), wanted)


def test_thousands_are_dollars_to_the_model() -> None:
    given = {
        state: {year: value / 1000 for year, value in years.items()}
        for state, years in incomes().items()
    }
    history = tensors(given, unit="thousands of dollars")
    np.testing.assert_allclose(history, tensors(incomes()), rtol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": "euros"},
        {"states": "CA"},
        {"more": 1},
        {"incomes": {"Maine": {"2000": 0}}},
        {"incomes": {"Maine": {"2000": -1}}},
        {"incomes": {"Maine": {"2000": float("nan")}}},
        {"incomes": {"Maine": {"2000": float("inf")}}},
        {"incomes": {"Maine": {"1": 1}}},
        {"incomes": {"Maine": {"last": 1}}},
        {"incomes": {"Maine": [1, 2]}},
    ],
)
def test_what_makes_no_sense_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ForecastRequest.model_validate({"incomes": incomes(), **changed})


def _growing(predictor: FakePredictor) -> None:
    """Forecast one, two and three percent more than the last year."""
    growth = np.array([1.01, 1.02, 1.03], np.float32)
    predictor.answer = lambda given: {"forecast": given["history"][:, :, -1:] * growth}


def asked(*bodies: Any) -> list[httpx.Response]:
    async def ask(service: Running) -> list[httpx.Response]:
        return [await service.client.post("/v1/income/forecast", json=body) for body in bodies]

    async def run() -> list[httpx.Response]:
        backend = FakeBackend(specs={"income": SPEC}, make=_growing)
        async with running(backend, MLFLOW_MODEL_NAME="income") as service:
            return await ask(service)

    return asyncio.run(run())


def test_the_next_three_years_of_all_states() -> None:
    (answer,) = asked({"incomes": incomes()})
    assert answer.status_code == 200
    told = answer.json()
    assert told["model"] == {"name": "income", "version": 1, "alias": "prod"}
    assert told["unit"] == "dollars"
    assert [one["state"] for one in told["forecasts"]] == [*PANEL.states]
    for one in told["forecasts"]:
        last = incomes()[one["state"]][2009]
        assert list(one["forecast"]) == ["2010", "2011", "2012"]
        wanted = [last * 1.01, last * 1.02, last * 1.03]
        np.testing.assert_allclose([*one["forecast"].values()], wanted, rtol=1e-6)


def test_only_the_wanted_states_in_the_order_asked_for() -> None:
    (answer,) = asked({"incomes": incomes(1990), "states": ["NY", "california", "Maine"]})
    forecasts = answer.json()["forecasts"]
    assert [one["state"] for one in forecasts] == ["New York", "California", "Maine"]
    assert forecasts[0]["forecast"]["2010"] == pytest.approx(
        incomes()["New York"][2009] * 1.01, rel=1e-6
    )


def test_the_answer_is_in_the_unit_of_the_question() -> None:
    thousands = {s: {y: v / 1000 for y, v in years.items()} for s, years in incomes().items()}
    (answer,) = asked({"incomes": thousands, "states": ["ME"], "unit": "thousands of dollars"})
    told = answer.json()
    assert told["unit"] == "thousands of dollars"
    wanted = incomes()["Maine"][2009] * 1.01 / 1000
    assert told["forecasts"][0]["forecast"]["2010"] == pytest.approx(wanted, rel=1e-4)


def test_a_forecast_that_is_no_number_is_null() -> None:
    request = ForecastRequest.model_validate({"incomes": incomes(), "states": ["ME"]})
    outputs = {"forecast": np.full((1, 48, 3), np.nan, np.float32)}
    answer = PLUGIN.to_response(request, outputs, ModelInfo(name="income", version=1, alias="prod"))
    assert '"2010":null' in answer.model_dump_json()


def test_wrong_requests_are_answered_for_the_person_who_asked() -> None:
    secret = 271828.0
    wrong = {**incomes(), "Maine": {**incomes()["Maine"], 1: secret}}
    missing = {state: years for state, years in incomes().items() if state != "Maine"}
    year, state, nothing, text = asked(
        {"incomes": wrong}, {"incomes": missing}, {}, {"incomes": {"Maine": {"2000": "hunter2"}}}
    )
    for answer in (year, state, nothing, text):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert "271828" not in answer.text
        assert "hunter2" not in answer.text
    assert state.json()["detail"].startswith("Maine is missing")
    assert nothing.json()["errors"] == [{"pointer": "/incomes", "detail": "Field required"}]
    assert text.json()["errors"][0]["pointer"] == "/incomes/Maine/2000"
