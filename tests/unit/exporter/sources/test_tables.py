"""Tables as tensors: what a signature promises, the logged example, and what the model is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import Field, MLModel
from exporter.sources.tabular.tables import Table


def logged(folder: Path, fields: tuple[Field, ...], example: Any = None) -> MLModel:
    path = None
    if example is not None:
        path = folder / "input_example.json"
        path.write_text(json.dumps(example))
    return MLModel(folder, {}, fields, (), path, None)


def columns(**kinds: str) -> tuple[Field, ...]:
    return tuple(Field(name.replace("_", " "), kind, None) for name, kind in kinds.items())


def test_every_column_is_an_input(tmp_path: Path) -> None:
    fields = columns(
        yes="boolean", small="integer", large="long", rough="float", fine="double", word="string"
    )
    table = Table.of(logged(tmp_path, fields), None)
    assert [(t.name, t.datatype, t.shape) for t in table.inputs] == [
        ("yes", "BOOL", (-1, 1)),
        ("small", "INT32", (-1, 1)),
        ("large", "INT64", (-1, 1)),
        ("rough", "FP32", (-1, 1)),
        ("fine", "FP64", (-1, 1)),
        ("word", "BYTES", (-1, 1)),
    ]
    assert len({t.axes[0] for t in table.inputs}) == 1


def test_names_become_valid_and_columns_keep_theirs(tmp_path: Path) -> None:
    fields = (Field("a b", "double", None), Field("a-b?", "double", None), Field("ä", "long", None))
    table = Table.of(logged(tmp_path, fields), None)
    names = [t.name for t in table.inputs]
    assert len(set(names)) == 3
    assert all(name.isascii() and " " not in name for name in names)
    values = {name: np.full((2, 1), place) for place, name in enumerate(names)}
    frame = table.given(values)
    assert list(frame.columns) == ["a b", "a-b?", "ä"]
    assert frame.iloc[0].tolist() == [0, 1, 2]


def test_the_example_by_column(tmp_path: Path) -> None:
    example = {"columns": ["word", "fine"], "data": [["süd", 1.5], ["", None]]}
    table_fields = columns(fine="double", word="string")
    model = logged(tmp_path, table_fields, example)
    found = Table.of(model, None).example(model)
    assert found is not None
    assert found["word"].tolist() == [["süd".encode()], [b""]]
    assert found["fine"].shape == (2, 1)
    assert np.isnan(found["fine"][1, 0])


@pytest.mark.parametrize("example", [{"columns": ["other"], "data": [[1]]}, [1], {"data": 3}])
def test_an_example_of_something_else_is_none(tmp_path: Path, example: Any) -> None:
    model = logged(tmp_path, columns(fine="double"), example)
    assert Table.of(model, None).example(model) is None


def test_words_are_given_as_text(tmp_path: Path) -> None:
    table = Table.of(logged(tmp_path, columns(word="string")), None)
    if table.columns:
        given = table.given({"word": np.array([["süd".encode()]], dtype=object)})
        assert given["word"].tolist() == ["süd"]


def test_a_matrix(tmp_path: Path) -> None:
    table = Table.of(logged(tmp_path, (Field("", "float32", (-1, 4)),)), 4)
    assert [(t.name, t.datatype, t.shape) for t in table.inputs] == [("input", "FP32", (-1, 4))]
    matrix = np.ones((2, 4), np.float32)
    assert table.given({"input": matrix}) is matrix


def test_the_estimator_knows_a_width_that_varies(tmp_path: Path) -> None:
    table = Table.of(logged(tmp_path, (Field("", "float64", (-1, -1)),)), 7)
    assert table.inputs[0].shape == (-1, 7)


def test_without_a_signature_the_estimator_tells(tmp_path: Path) -> None:
    assert Table.of(logged(tmp_path, ()), 3).inputs[0].shape == (-1, 3)
    with pytest.raises(ValidationFailedError) as refused:
        Table.of(logged(tmp_path, ()), None)
    assert refused.value.kind == "signature"
    assert "infer_signature" in refused.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        columns(day="datetime"),
        (Field("", "float32", (-1, 3, 3)),),
        (Field("a", "float32", (-1, 3)), Field("b", "float32", (-1, 3))),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, fields: tuple[Field, ...]) -> None:
    with pytest.raises(ValidationFailedError) as refused:
        Table.of(logged(tmp_path, fields), None)
    assert refused.value.kind == "signature"
