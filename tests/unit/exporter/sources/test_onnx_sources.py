"""What is read of ONNX files as people log them, and what is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget
from exporter.sources.mlmodel import Field
from exporter.sources.onnx import open_source
from exporter.sources.onnx.string_locale import uses_english_locale
from tests.support.onnx_files import ROWS, graph_of, logged, model_of, opened

TARGET = OnnxTarget(opset=17, ir=8, max_opset=26, max_ir=13)


def identity(kind: int, shape: list[int | str | None], opset: int = 17) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    return model_of(graph_of([node], {"x": shape}, {"y": shape}, kind=kind), opset)


def classifier(labels: str, values: list[int] | list[str]) -> onnx.ModelProto:
    """As skl2onnx writes a classifier unless told otherwise."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        helper.make_node(
            "ZipMap", ["probabilities"], ["output_probability"], domain="ai.onnx.ml",
            **{labels: values},
        ),
    ]  # fmt: skip
    weights = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    graph = graph_of(nodes, {"x": ["n", 6]}, {}, {"w": weights})
    key = TensorProto.STRING if labels.endswith("strings") else TensorProto.INT64
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    rows = helper.make_sequence_type_proto(helper.make_map_type_proto(key, number))
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    graph.output.append(helper.make_value_info("output_probability", rows))
    return model_of(graph, ai_onnx_ml=3)


@pytest.mark.parametrize(
    ("labels", "values"),
    [("classlabels_int64s", [10, 20, 5]), ("classlabels_strings", ["no", "yes", "maybe"])],
)
def test_dictionaries_become_columns(
    tmp_path: Path, labels: str, values: list[int] | list[str]
) -> None:
    source = opened(tmp_path, classifier(labels, values), example=ROWS.tolist())
    label, probability = source.interface.outputs
    assert (label.datatype, label.shape) == ("INT64", (-1,))
    assert (probability.datatype, probability.shape) == ("FP32", (-1, 3))
    assert ", ".join(map(str, values)) in " ".join(source.notes)
    answer = source.run({"x": ROWS})["output_probability"]
    assert np.allclose(answer.sum(1), 1)
    path = tmp_path / "written.onnx"
    assert "ZipMap" in source.onnx_exporters(TARGET)[0](path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(["output_probability"], {"x": ROWS})[0], answer)
    raw = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (first, *_) = raw.run(["output_probability"], {"x": ROWS})[0]
    assert answer[0].tolist() == [first[value] for value in values]


def test_external_data_under_any_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    constants = {name: np.full((4, 6), i + 2, np.float32) for i, name in enumerate("ab")}
    proto = model_of(graph_of(nodes, {"x": [4, 6]}, {"y": [4, 6]}, constants))
    model = logged(tmp_path / "logged", proto)
    (model.path / "weights").mkdir()
    places = {"a": "weights/Größe 1 (copy).bin", "b": "libtriton_x.so"}
    for tensor in proto.graph.initializer:
        (model.path / places[tensor.name]).write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, places[tensor.name])
        tensor.ClearField("raw_data")
    (model.path / "model.onnx").write_bytes(proto.SerializeToString())
    folder = tmp_path / "written"
    folder.mkdir()
    open_source(model, allow_pickle=False).onnx_exporters(TARGET)[0](folder / "model.onnx")
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "model.onnx.data.1",
    ]
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"x": ROWS})[0], 2 * ROWS + 3)


@pytest.mark.parametrize("place", ["../outside", "/etc/hostname", "a/../../b"])
def test_external_data_outside_of_the_artifact(tmp_path: Path, place: str) -> None:
    proto = model_of(
        graph_of(
            [helper.make_node("Mul", ["x", "a"], ["y"])],
            {"x": [4, 6]},
            {"y": [4, 6]},
            {"a": ROWS},
        )
    )
    model = logged(tmp_path, proto)
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], place)
    proto.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ValidationFailedError, match="outside itself"):
        open_source(model, allow_pickle=False)


def test_an_input_that_the_file_has_a_value_for(tmp_path: Path) -> None:
    graph = graph_of(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": ["n", 6], "factor": [6]},
        {"y": ["n", 6]},
        {"factor": np.full(6, 3, np.float32)},
    )
    source = opened(tmp_path, model_of(graph))
    assert [tensor.name for tensor in source.interface.inputs] == ["x"]
    assert np.allclose(source.run({"x": ROWS})["y"], 3 * ROWS)
    assert "'factor'" in " ".join(source.notes)
    # Old files had to list all of their constants: nothing to say of them.
    assert not opened(tmp_path, model_of(graph, 8, 3)).notes


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TensorProto.BFLOAT16, "tensor.bfloat16"),
        (TensorProto.FLOAT8E4M3FN, "tensor.float8e4m3fn"),
        (TensorProto.INT4, "tensor.int4"),
    ],
)
def test_types_that_cannot_be_served(tmp_path: Path, kind: int, words: str) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    proto = model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}), 21, 10)
    proto.graph.input[0].type.tensor_type.elem_type = kind
    with pytest.raises(ValidationFailedError, match=words) as refused:
        opened(tmp_path, proto)
    assert refused.value.kind == "interface"
    assert "Cast" in refused.value.hint


def test_an_optional_input(tmp_path: Path) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 6])
    graph = graph_of([helper.make_node("OptionalGetElement", ["x"], ["y"])], {}, {"y": ["n", 6]})
    graph.input.append(helper.make_value_info("x", helper.make_optional_type_proto(tensor)))
    with pytest.raises(ValidationFailedError, match="optional") as refused:
        opened(tmp_path, model_of(graph))
    assert refused.value.kind == "interface"


def test_a_sequence_that_no_tensor_stands_for(tmp_path: Path) -> None:
    node = helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)
    graph = graph_of([node], {"x": ["n", 6]}, {})
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 6])
    graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(tensor)))
    with pytest.raises(ValidationFailedError, match="seq"):
        opened(tmp_path, model_of(graph))


def test_operators_of_somebody_else(tmp_path: Path) -> None:
    node = helper.make_node("BertTokenizer", ["x"], ["y"], domain="ai.onnx.contrib")
    proto = model_of(graph_of([node], {"x": ["n", 6]}, {"y": ["n", 6]}), ai_onnx_contrib=1)
    with pytest.raises(ValidationFailedError, match=r"BertTokenizer.*'ai.onnx.contrib'") as refused:
        opened(tmp_path, proto)
    assert refused.value.kind == "target"


def test_operators_of_onnx_runtime_and_functions_of_the_file(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("Twice", ["g"], ["y"], domain="mine"),
    ]
    proto = model_of(graph_of(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}), com_microsoft=1, mine=1)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, opsets))
    source = opened(tmp_path, proto)
    assert source.run({"x": ROWS})["y"].shape == ROWS.shape


@pytest.mark.parametrize(
    "example",
    [
        {"columns": [f"c{i}" for i in range(6)], "data": ROWS.tolist()},
        {"columns": [f"c{i}" for i in range(6)], "index": [0, 1, 2, 3], "data": ROWS.tolist()},
        ROWS.tolist(),
        {"inputs": ROWS.tolist()},
        {"x": ROWS.tolist()},
    ],
)
def test_examples_of_one_input(tmp_path: Path, example: object) -> None:
    source = opened(tmp_path, identity(TensorProto.FLOAT, ["n", 6]), example=example)
    assert source.example is not None
    assert np.allclose(source.example["x"], ROWS)


def test_a_table_of_which_each_column_is_an_input(tmp_path: Path) -> None:
    graph = graph_of(
        [helper.make_node("Add", ["age", "fare"], ["y"])],
        {"age": [None, 1], "fare": [None, 1]},
        {"y": [None, 1]},
    )
    example = {"columns": ["fare", "age"], "data": [[1.5, 20], [2.5, 30]]}
    source = opened(tmp_path, model_of(graph), example=example)
    assert source.example is not None
    assert source.example["age"].tolist() == [[20.0], [30.0]]
    assert source.example["fare"].tolist() == [[1.5], [2.5]]


def test_one_symbol_for_sizes_that_differ(tmp_path: Path) -> None:
    graph = graph_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", "N"], "w": ["N", "N"]},
        {"y": ["N", "N"]},
    )
    example = {"x": ROWS.tolist(), "w": np.ones((6, 2)).tolist()}
    x, w = opened(tmp_path, model_of(graph), example=example).interface.inputs
    assert len({*x.axes, *w.axes}) == 4
    # Where nothing shows otherwise, the same symbol is the same size.
    x, w = opened(tmp_path, model_of(graph)).interface.inputs
    assert {*x.axes, *w.axes} == {"N"}
    # Nor are these symbols at all.
    x, _ = opened(tmp_path, identity(TensorProto.FLOAT, ["?", "?"])).interface.inputs * 2
    assert len(set(x.axes)) == 2


def test_a_fixed_first_axis_is_explained(tmp_path: Path) -> None:
    source = opened(tmp_path, identity(TensorProto.FLOAT, [1, 6]))
    assert "fixes the first axis of 'x'" in " ".join(source.notes)
    assert not opened(tmp_path, identity(TensorProto.FLOAT, ["n", 6])).notes


def test_a_signature_of_columns_is_no_promise_of_tensors(tmp_path: Path) -> None:
    columns = tuple(Field(f"c{i}", "double", None) for i in range(6))
    source = opened(tmp_path, identity(TensorProto.FLOAT, ["n", 6]), inputs=columns)
    assert source.interface.inputs[0].shape == (-1, 6)


@pytest.mark.parametrize("locale", [{}, {"locale": "en_US"}])
def test_the_case_of_texts_where_no_locale_is_installed(
    tmp_path: Path, locale: dict[str, str]
) -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", **locale)
    shape = {"x": ["n"]}, {"y": ["n"]}
    source = opened(tmp_path, model_of(graph_of([node], *shape, kind=TensorProto.STRING)))
    words = np.array([b"GOOD", "ÄÖÜ Straße ЯБЛОКО".encode()], dtype=object)
    assert source.run({"x": words})["y"].tolist() == [b"good", "äöü straße яблоко".encode()]
    assert "C.UTF-8" in " ".join(source.notes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]
    source.onnx_exporters(TARGET)[0](tmp_path / "written.onnx")
    written = onnx.load(tmp_path / "written.onnx").graph.node[0]
    assert [a.s for a in written.attribute if a.name == "locale"] == [b"C.UTF-8"]


def test_a_locale_of_another_language_is_kept() -> None:
    node = helper.make_node(
        "StringNormalizer", ["x"], ["y"], case_change_action="LOWER", locale="tr_TR.UTF-8"
    )
    shape = {"x": ["n"]}, {"y": ["n"]}
    assert not uses_english_locale(model_of(graph_of([node], *shape, kind=TensorProto.STRING)))


@pytest.mark.parametrize("example", [None, ROWS[:1].tolist(), ROWS.tolist()])
def test_rows_that_a_converter_declared_to_be_one(tmp_path: Path, example: object) -> None:
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=ROWS[:3].ravel().tolist(),
        intercepts=[0.0, 0.0, 0.0],
        classlabels_ints=[0, 1, 2],
    )
    graph = graph_of([node], {"x": ["n", 6]}, {"scores": ["n", 3]})
    # As onnxmltools does for LightGBM.
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, [1]))
    source = opened(tmp_path, model_of(graph, ai_onnx_ml=1), example=example)
    assert [tensor.shape for tensor in source.interface.outputs] == [(-1, 3), (-1,)]
    path = tmp_path / "written.onnx"
    source.onnx_exporters(TARGET)[0](path)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert not isinstance(session.get_outputs()[1].shape[0], int)
    assert session.run(["label"], {"x": ROWS})[0].shape == (4,)


def test_a_name_that_is_empty(tmp_path: Path) -> None:
    proto = identity(TensorProto.FLOAT, ["n", 6])
    proto.graph.input[0].name = ""
    with pytest.raises(ValidationFailedError) as refused:
        opened(tmp_path, proto)
    assert refused.value.kind == "artifact"
