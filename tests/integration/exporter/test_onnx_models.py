"""ONNX files as people really log them, each served by a real server or refused with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.arrays import read_npz
from exporter.commands.export.result import ExportResult
from exporter.triton.model_config import parse
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton

ROWS = np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32)
Dims = Sequence[int | str | None]


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, tuple[int, Dims]],
    outputs: Mapping[str, tuple[int, Dims]],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(*domain) for domain in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def proven(
    lab: RegistryFixture, name: str, batching: str = "dynamic", **options: object
) -> ExportResult:
    result = lab.export(name, **options)
    assert result.status == "promoted", result.error
    assert (result.parity or {})["batching"] == batching, result.parity
    return result


def declared(
    lab: RegistryFixture, name: str, root: str = "repository"
) -> Mapping[str, tuple[str, list[int]]]:
    config = parse((lab.folder / root / name / "config.pbtxt").read_text(), where=name)
    types = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return {
        entry.name: (types[entry.data_type].name.removeprefix("TYPE_"), list(entry.dims))
        for entry in (*config.input, *config.output)
    }


def samples(lab: RegistryFixture, name: str) -> Any:
    return read_npz(lab.folder / "repository" / name / "1" / "samples.npz")


FLOATS = TensorProto.FLOAT


def test_a_newer_opset_for_an_older_release(lab: RegistryFixture) -> None:
    nodes = [
        helper.make_node("RMSNormalization", ["x", "scale"], ["r"]),
        helper.make_node("Swish", ["r"], ["y"]),
    ]
    scale = np.linspace(0.5, 2, 6, dtype=np.float32)
    proto = model(
        nodes,
        {"x": (FLOATS, ["n", 6])},
        {"y": (FLOATS, ["n", 6])},
        {"scale": scale},
        opset=24,
        ir=12,
    )
    lab.register_onnx("newer", proto, example=ROWS)
    result = proven(lab, "newer", triton_release="24.10")
    assert (result.parity or {})["margin"] < 1
    served = onnx.load(lab.folder / "repository" / "newer" / "1" / "model.onnx")
    assert (served.opset_import[0].version, served.ir_version) == (21, 10)
    normal = ROWS / np.sqrt((ROWS**2).mean(1, keepdims=True) + 1e-5) * scale
    kept = samples(lab, "newer")
    assert np.allclose(kept["example/output/y"], normal / (1 + np.exp(-normal)), atol=1e-5)


def test_a_newer_opset_that_has_no_older_form(lab: RegistryFixture) -> None:
    nodes = [helper.make_node("TensorScatter", ["x", "update"], ["y"], axis=1)]
    update = np.ones((4, 2, 3), np.float32)
    shape = (FLOATS, [4, 5, 3])
    proto = model(nodes, {"x": shape}, {"y": shape}, {"update": update}, opset=24, ir=12)
    lab.register_onnx("no-older", proto)
    result = lab.export("no-older", triton_release="24.10")
    assert result.exit_code == 3
    assert (result.error or {})["kind"] == "target", result.error
    assert "TensorScatter" in (result.error or {})["message"]
    assert lab.alias("no-older") is None


def test_names_that_no_server_has(lab: RegistryFixture) -> None:
    nodes = [
        helper.make_node("MatMul", ["house size (m²)", "w"], ["inner"]),
        helper.make_node("Sigmoid", ["inner"], ["the price"]),
        # As converters of TensorFlow and Rust write them: no server minds.
        helper.make_node("Neg", ["the price"], ["head/loss::y:0"]),
    ]
    proto = model(
        nodes,
        {"house size (m²)": (FLOATS, ["n", 6])},
        {"the price": (FLOATS, ["n", 2]), "head/loss::y:0": (FLOATS, ["n", 2])},
        {"w": ROWS[:2].T},
    )
    lab.register_onnx("names", proto, example={"house size (m²)": ROWS})
    proven(lab, "names")
    assert declared(lab, "names") == {
        "house_size_m": ("FP32", [6]),
        "the_price": ("FP32", [2]),
        "head/loss::y:0": ("FP32", [2]),
    }
    kept = samples(lab, "names")
    assert np.array_equal(kept["example/input/house_size_m"], ROWS)


def test_a_classifier_that_answers_with_dictionaries(lab: RegistryFixture) -> None:
    import skl2onnx
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    rows = random.normal(size=(90, 6)).astype(np.float32)
    labels = np.array(["poor", "fair", "good"])[np.digitize(rows.sum(1), [-1, 1])]
    estimator = LogisticRegression().fit(rows, labels)
    kind = skl2onnx.common.data_types.FloatTensorType([None, 6])
    # What people get who change nothing.
    proto = skl2onnx.convert_sklearn(estimator, initial_types=[("features", kind)])
    lab.register_onnx("dictionaries", proto, example=rows[:5])
    proven(lab, "dictionaries")
    assert declared(lab, "dictionaries") == {
        "features": ("FP32", [6]),
        "output_label": ("STRING", [1]),
        "output_probability": ("FP32", [3]),
    }
    found = samples(lab, "dictionaries")["example/output/output_probability"]
    assert np.allclose(found, estimator.predict_proba(rows[:5]), atol=1e-5)
    report = (lab.folder / "repository" / "dictionaries" / "1" / "report.json").read_text()
    assert "by class: fair, good, poor" in report


def test_texts(lab: RegistryFixture) -> None:
    import skl2onnx
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = ["A GOOD film", "a BAD film", "very good indeed", "bad, bad film", "good"]
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression())
    estimator.fit(texts, [1, 0, 1, 0, 1])
    kind = skl2onnx.common.data_types.StringTensorType([None, 1])
    proto = skl2onnx.convert_sklearn(estimator, initial_types=[("text", kind)])
    example = np.array(texts, dtype=object)[:, None]
    lab.register_onnx("texts", proto, example=example)
    proven(lab, "texts")
    assert declared(lab, "texts")["text"] == ("STRING", [1])
    # Letters change their case, on a server without the locale that the file asks for too.
    found = samples(lab, "texts")["example/output/output_probability"]
    assert np.allclose(found, estimator.predict_proba(texts), atol=1e-5)


def test_rows_of_texts(lab: RegistryFixture) -> None:
    proto = model(
        [
            helper.make_node(
                "LabelEncoder",
                ["region"],
                ["code"],
                domain="ai.onnx.ml",
                keys_strings=["north", "south", "Zürich"],
                values_int64s=[3, 5, 7],
                default_int64=-1,
            )
        ],
        {"region": (TensorProto.STRING, [None, 1])},
        {"code": (TensorProto.INT64, [None, 1])},
        domains={"ai.onnx.ml": 2},
    )
    regions = np.array([["north"], ["Zürich"], ["elsewhere"]], dtype=object)
    lab.register_onnx("regions", proto, example=regions)
    proven(lab, "regions")
    assert samples(lab, "regions")["example/output/code"].tolist() == [[3], [7], [-1]]


def test_two_sizes_that_vary(lab: RegistryFixture) -> None:
    varying = (TensorProto.DOUBLE, ["batch", "time"])
    nodes = [
        helper.make_node("Mul", ["values", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "last"], ["sum"], keepdims=0),
        helper.make_node("CumSum", ["kept", "last"], ["running"]),
    ]
    proto = model(
        nodes,
        {"values": varying, "mask": varying},
        {"sum": (TensorProto.DOUBLE, ["batch"]), "running": varying},
        {"last": np.array([1])},
    )
    values = ROWS.astype(np.float64)
    lab.register_onnx("sizes", proto, example={"values": values, "mask": (values > 0) * 1.0})
    proven(lab, "sizes")
    assert declared(lab, "sizes")["running"] == ("FP64", [-1])
    kept = samples(lab, "sizes")
    widths = {kept[name].shape[1] for name in kept if name.endswith("input/values")}
    assert len(widths) > 2


def test_a_fixed_batch(lab: RegistryFixture) -> None:
    shape = (TensorProto.UINT8, [1, 6])
    proto = model(
        [
            helper.make_node("Cast", ["pixels"], ["p"], to=FLOATS),
            helper.make_node("ReduceMean", ["p"], ["mean"], keepdims=0),
        ],
        {"pixels": shape},
        {"mean": (FLOATS, [])},
    )
    pixels = np.arange(6, dtype=np.uint8)[None]
    lab.register_onnx("fixed", proto, example=pixels)
    result = proven(lab, "fixed", "off")
    assert declared(lab, "fixed") == {"pixels": ("UINT8", [1, 6]), "mean": ("FP32", [1])}
    report = lab.folder / "repository" / "fixed" / "1" / "report.json"
    assert "fixes the first axis of 'pixels'" in report.read_text(), result.report


@pytest.mark.parametrize(
    ("name", "last", "sizes"),
    [
        ("same", helper.make_node("Identity", ["moved"], ["y"]), ["batch", 4]),
        ("twice", helper.make_node("Concat", ["moved", "x"], ["y"], axis=0), ["both", 4]),
    ],
)
def test_one_number_of_rows(
    lab: RegistryFixture, name: str, last: NodeProto, sizes: list[Any]
) -> None:
    """A file that promises any number of rows, and takes six: what follows from them is fixed."""
    mixing = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
    proto = model(
        [helper.make_node("MatMul", ["mixing", "x"], ["moved"]), last],
        {"x": (FLOATS, ["batch", 4])},
        {"y": (FLOATS, sizes)},
        {"mixing": mixing},
    )
    lab.register_onnx(name, proto, example=mixing[:, :4])
    proven(lab, name, "off")
    assert declared(lab, name) == {
        "x": ("FP32", [6, 4]),
        "y": ("FP32", [6 if name == "same" else 12, 4]),
    }
