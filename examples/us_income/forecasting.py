"""The demo's business endpoint: incomes of states by year in, forecasts by state and year out."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from examples.us_income.data import HISTORY_YEARS, HORIZON_YEARS, load_panel
from stlab_api.plugins import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from triton_client.types import ModelSpec

__all__ = ["ForecastRequest", "ForecastResponse", "IncomeForecast", "StateForecast"]

# In the order of their states' names.
_CODES = (
    "AL", "AZ", "AR", "CA", "CO", "CT", "DE", "FL", "GA", "ID", "IL", "IN", "IA", "KS", "KY", "LA",
    "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM", "NY", "NC", "ND",
    "OH", "OK", "OR", "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY",
)  # fmt: skip
_NAMES = load_panel().states
_STATES = {
    **{name.casefold(): name for name in _NAMES},
    **{code.casefold(): name for code, name in zip(_CODES, _NAMES, strict=True)},
}
_UNITS = {"dollars": 1.0, "thousands of dollars": 1000.0}

Year = Annotated[int, Field(ge=1900, le=2200)]
Income = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


def _example() -> dict[str, Any]:
    panel = load_panel()
    last = HISTORY_YEARS + 61
    years = [str(year) for year in panel.years[61:last]]
    return {
        "incomes": {
            state: dict(zip(years, map(float, panel.income[place, 61:last]), strict=True))
            for place, state in enumerate(panel.states)
        },
        "states": ["California", "NY"],
    }


class ForecastRequest(BaseModel):
    """Incomes of the last years, from which those of the next years are forecast."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_example()]})

    incomes: dict[str, dict[Year, Income]] = Field(
        description=f"For each of the {len(_NAMES)} contiguous states, by name or postal code, the "
        f"income per head of {HISTORY_YEARS} years in a row. Of more years the last ones count."
    )
    states: list[str] = Field([], description="The states to forecast; all by default.")
    unit: Literal["dollars", "thousands of dollars"] = "dollars"


class StateForecast(BaseModel):
    """One state's forecast, in the unit of the request."""

    state: str
    forecast: dict[int, float]


class ForecastResponse(BaseModel):
    """What was forecast, and by what."""

    model: ModelInfo
    unit: str
    forecasts: list[StateForecast]


class IncomeForecast:
    """Forecast the income per head of US states for the next three years."""

    model: ClassVar[str] = "income"
    path: ClassVar[str] = "/v1/income/forecast"
    request = ForecastRequest
    response = ForecastResponse

    def to_tensors(
        self, request: ForecastRequest, spec: ModelSpec
    ) -> dict[str, NDArray[np.float32]]:
        """Return ``history``, float32 [1, states, years] in US dollars.

        Raises:
            ValueError: A state or a year is missing, or not known.
        """
        (tensor,) = spec.inputs
        given = _by_state(request.incomes)
        years = _common_years(given)
        _named(request.states)
        rows = [[given[state][year] for year in years] for state in _NAMES]
        history = np.array([rows], np.float32) * np.float32(_UNITS[request.unit])
        return {tensor.name: history}

    def to_response(
        self, request: ForecastRequest, outputs: Mapping[str, NDArray[Any]], model: ModelInfo
    ) -> ForecastResponse:
        """Name the states and the years of what the model answers, [1, states, years]."""
        (answer,) = outputs.values()
        last = max(next(iter(request.incomes.values())))
        ahead = range(last + 1, last + 1 + HORIZON_YEARS)
        wanted = _named(request.states) or _NAMES
        scaled = answer[0].astype(np.float64) / _UNITS[request.unit]
        return ForecastResponse(
            model=model,
            unit=request.unit,
            forecasts=[
                StateForecast(
                    state=state,
                    forecast=dict(zip(ahead, scaled[_NAMES.index(state)].round(4), strict=True)),
                )
                for state in wanted
            ],
        )


def _by_state(incomes: Mapping[str, Mapping[int, float]]) -> dict[str, Mapping[int, float]]:
    given: dict[str, Mapping[int, float]] = {}
    for name, (word, values) in zip(_named(incomes), incomes.items(), strict=True):
        if name in given:
            raise ValueError(f"{name} is given twice, once as {word!r}")
        given[name] = values
    missing = [name for name in _NAMES if name not in given]
    if missing:
        raise ValueError(
            f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing: the forecast "
            f"looks at all {len(_NAMES)} contiguous states, since neighbours go together"
        )
    return given


def _named(words: Iterable[str]) -> list[str]:
    names = []
    for word in words:
        name = _STATES.get(" ".join(word.split()).casefold())
        if name is None:
            near = get_close_matches(word.casefold(), [n.casefold() for n in _NAMES], 1)
            maybe = f"; did you mean {_STATES[near[0]]}?" if near else ""
            raise ValueError(f"{word!r} is none of the {len(_NAMES)} contiguous US states{maybe}")
        names.append(name)
    return names


def _common_years(given: Mapping[str, Mapping[int, float]]) -> list[int]:
    """Return the last years of all states.

    Raises:
        ValueError: A state has a gap or too few years, or others than the rest.
    """
    ends = {state: max(years, default=0) for state, years in given.items()}
    for state, years in given.items():
        if not years:
            raise ValueError(f"{state} has no years: give {HISTORY_YEARS} in a row")
        gap = sorted(set(range(min(years), max(years) + 1)) - set(years))
        if gap:
            raise ValueError(
                f"the years of {state} have a gap: {_listed(map(str, gap))} "
                f"{'is' if len(gap) == 1 else 'are'} missing"
            )
        if len(years) < HISTORY_YEARS:
            raise ValueError(
                f"{state} has {len(years)} years, {min(years)} to {max(years)}: give "
                f"{HISTORY_YEARS} in a row"
            )
    first = _NAMES[0]
    for state, end in ends.items():
        if end != ends[first]:
            raise ValueError(
                f"the years of {first} end in {ends[first]} and those of {state} in {end}: give "
                "the same years for all states"
            )
    return list(range(ends[first] - HISTORY_YEARS + 1, ends[first] + 1))


def _listed(words: Iterable[str], most: int = 5) -> str:
    shown = list(words)
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
