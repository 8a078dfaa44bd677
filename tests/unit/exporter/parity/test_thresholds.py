"""The proof finds the thresholds of a reference by itself, and asks on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from exporter.arrays import Arrays
from exporter.formats.first_valid import precheck
from exporter.interface import Interface, Tensor
from exporter.parity.decision_thresholds import threshold_inputs
from exporter.parity.evidence import Evidence
from exporter.parity.reference_checks import check_reference
from exporter.sources.base import InputRejectedError, Source
from exporter.sources.known_values import Knowledge
from exporter.sources.onnx.sessions import load_session, run_session
from exporter.sources.sklearn.trees import has_thresholds

X = Tensor("x", "FP64", ("rows", 2))
Y = Tensor("y", "FP64", ("rows",))
EXAMPLE = {"x": np.array([[0.1, 5.0], [0.2, 7.0]])}


class Function:
    """A reference that is one function of a row."""

    frozen_axes: tuple[str, ...] = ()
    batching_blocker = ""
    has_thresholds = True
    operators = frozenset[str]()
    sizes_beyond = MappingProxyType[str, list[int]]({})
    knowledge = Knowledge()
    flavor = "function"
    example = EXAMPLE
    interface = Interface((X,), (Y,))

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def run(self, inputs: Arrays) -> dict[str, Any]:
        return {"y": np.asarray(self._function(inputs["x"]), np.float64)}

    def run_float64(self, inputs: Arrays) -> None:
        return None


def asked(function: Callable[[Any], Any], most: int = 8) -> Any:
    return threshold_inputs(cast("Source", Function(function)), EXAMPLE, most)


def test_both_sides_of_a_threshold_and_the_number_that_lies_there() -> None:
    # As float32 rounds it, which is a little more than the number itself.
    threshold = float(np.float32(0.15))
    found = asked(lambda x: np.where(x[:, 0] < threshold, 1.0, 2.0))
    assert set(found["x"][:, 0]) == {np.nextafter(threshold, 0), threshold, 0.15}
    assert set(found["x"][:, 1]) <= {5.0, 7.0}


def test_a_number_that_is_its_own_threshold_comes_once() -> None:
    found = asked(lambda x: x[:, 1] > 6.0)
    assert sorted(set(found["x"][:, 1])) == [6.0, np.nextafter(6.0, 7)]


def test_a_slope_has_no_threshold() -> None:
    assert asked(lambda x: x.sum(1) ** 3) is None


def test_steps_on_a_slope_are_found() -> None:
    found = asked(lambda x: x[:, 1] + np.where(x[:, 1] < 6.5, 0, 3))
    assert {6.5, np.nextafter(6.5, 0)} <= set(found["x"][:, 1])


def test_no_more_than_asked_for() -> None:
    found = asked(lambda x: np.floor(x * 10).sum(1), most=1)
    assert len(found["x"]) <= 3


def test_a_refusal_is_no_threshold() -> None:
    def refuse(x: Any) -> Any:
        if ((x[:, 0] > 0.14) & (x[:, 0] < 0.16)).any():
            raise InputRejectedError("not there")
        return np.where(x[:, 0] < 0.15, 1.0, 2.0)

    with pytest.raises(InputRejectedError):
        asked(refuse)


def file(path: Path, threshold: float) -> Path:
    nodes = [
        helper.make_node("Gather", ["x", "place"], ["column"], axis=1),
        helper.make_node("Less", ["column", "threshold"], ["below"]),
        helper.make_node("Cast", ["below"], ["y"], to=TensorProto.DOUBLE),
    ]
    constants = [
        numpy_helper.from_array(np.array(0, np.int64), "place"),
        numpy_helper.from_array(np.array(threshold), "threshold"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.DOUBLE, ["rows", 2])],
        [value("y", TensorProto.DOUBLE, ["rows"])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize("rounded", [False, True])
def test_a_threshold_that_was_rounded_on_its_way_is_refused(tmp_path: Path, rounded: bool) -> None:
    source = cast("Source", Function(lambda x: x[:, 0] < 0.15))
    references = check_reference(source, Evidence(), max_batch_size=4, batching="auto")
    assert references.batching.max_batch_size == 4
    assert all(len(answer.case.inputs["x"]) <= 4 for answer in references.cases)
    written = float(np.float32(0.15)) if rounded else 0.15
    session = load_session(file(tmp_path / "m.onnx", written))
    problem = precheck(lambda: partial(run_session, session, ["y"]), references, (Y,))
    assert problem.startswith("thresholds 1, output 'y': ") if rounded else problem == ""


def test_only_what_is_written_exactly_is_asked() -> None:
    forest = RandomForestClassifier()
    assert has_thresholds(forest)
    assert has_thresholds(make_pipeline(StandardScaler(), MinMaxScaler(), forest))
    assert not has_thresholds(make_pipeline(PCA(), forest))
    assert not has_thresholds(make_pipeline(StandardScaler(), Ridge()))
    stacked = StackingRegressor([("trees", HistGradientBoostingRegressor())], Ridge())
    assert not has_thresholds(stacked)
