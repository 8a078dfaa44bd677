"""Whole files in a lower precision: what is written, what is said of it, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.errors import ValidationFailedError
from exporter.formats.base import Conversion, Target
from exporter.formats.precision import reduce_precision
from exporter.interface import Interface, Tensor
from exporter.parity.evidence import Batching
from exporter.parity.input_generator import Case
from exporter.parity.reference_set import ReferenceCase, ReferenceSet
from exporter.parity.tolerances import measure
from exporter.triton.releases import release

node = helper.make_node
Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    x: Sequence[int],
    y: Sequence[int],
    *,
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, ["n", *x])],
        [helper.make_tensor_value_info("y", kind, ["n", *y])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def classifier(opset: int = 18) -> ModelProto:
    """Two convolutions, the first with batch normalisation, and a head."""
    return model(
        [
            node("Conv", ["x", "w1", "b1"], ["c1"], name="conv 1", pads=[1, 1, 1, 1]),
            node("Relu", ["c1"], ["r1"], name="relu 1"),
            node("MaxPool", ["r1"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "w2", "b2"], ["c2"], name="conv 2", pads=[1, 1, 1, 1]),
            node("Relu", ["c2"], ["r2"], name="relu 2"),
            node("GlobalAveragePool", ["r2"], ["a"], name="average"),
            node("Flatten", ["a"], ["f"], name="flatten"),
            node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
        ],
        {
            "w1": random(16, 3, 3, 3) / 3, "b1": random(16) / 9,
            "w2": random(32, 16, 3, 3, seed=1) / 9, "b2": random(32) / 9,
            "w3": random(5, 32, seed=2), "b3": random(5),
        },
        [3, 8, 8],
        [5],
        opset=opset,
    )  # fmt: skip


def regression() -> ModelProto:
    """Of one large input and one small one, both of which count."""
    return model(
        [node("Gemm", ["x", "w"], ["y"], name="head")],
        {"w": np.array([[1e-6], [1e2]], np.float32)},
        [2],
        [1],
    )


def reduced(
    given: ModelProto,
    folder: Path,
    precision: str,
    x: Array,
    *,
    triton: str = "26.07",
    wrong: float = 0.0,
    **options: Any,
) -> tuple[ModelProto, Conversion, ReferenceSet]:
    """Reduce a file that is to answer as it does in float32; return it with what is said of it."""
    (folder / "bundle").mkdir(exist_ok=True)
    path = folder / "bundle" / "model.onnx"
    onnx.save(given, path)
    session = ort.InferenceSession(path)

    def answer(name: str, rows: Array) -> ReferenceCase:
        return ReferenceCase(
            Case(name, {"x": rows}), {"y": session.run(None, {"x": rows})[0] + wrong}
        )

    answers = tuple(answer(f"{n} rows", x[n : 2 * n]) for n in (4, 1, 2, 3))
    interface = Interface(
        (Tensor("x", "FP32", ("n", *x.shape[1:])),),
        (Tensor("y", "FP32", ("n", *answers[0].outputs["y"].shape[1:])),),
    )
    (output,) = interface.outputs
    budgets = {
        p: {"y": measure(output, [a.outputs["y"] for a in answers], [], p)}
        for p in (precision, "fp32")
    }
    references = ReferenceSet(
        answers, answer("pool", x[8:24]), budgets[precision], Batching(16), False, budgets["fp32"]
    )
    conversion = Conversion(
        "onnx", "onnxruntime", path.name, interface, "by hand", {}, path.stat().st_size
    )
    conversion = reduce_precision(
        path, conversion, Target(release(triton), precision), references, **options
    )
    return onnx.load(path), conversion, references


def margin(given: ModelProto, references: ReferenceSet) -> float:
    """The worst error beside its budget over all that the reference was asked."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(given.SerializeToString(), options)
    tolerance = references.tolerances["y"]
    assert tolerance is not None
    assert references.batch is not None
    worst = 0.0
    for answer in (*references.cases, references.batch):
        expected = answer.outputs["y"]
        error = np.abs(session.run(None, dict(answer.case.inputs))[0] - expected)
        worst = max(worst, float((error / tolerance.budget(expected)).max()))
    return worst


def readers(given: ModelProto, name: str) -> set[str]:
    return {n.op_type for n in given.graph.node if name in n.input}


IMAGES = random(24, 3, 8, 8, seed=3)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_classifier_is_smaller_and_within_budget(precision: str, tmp_path: Path) -> None:
    small, conversion, references = reduced(classifier(), tmp_path, precision, IMAGES)
    onnx.checker.check_model(small, full_check=True)
    assert margin(small, references) < 1
    kinds = {v.type.tensor_type.elem_type for v in (*small.graph.input, *small.graph.output)}
    assert kinds == {TensorProto.FLOAT}
    told = conversion.facts["reduced"]
    assert told["kept_float32"] == []
    assert told["bytes"][precision] == conversion.bytes < 0.6 * told["bytes"]["fp32"]
    assert set(conversion.measured["milliseconds"]) == {"fp32", precision}
    assert "milliseconds" not in told, "what differs from run to run is no part of a bundle"
    assert conversion.measured["max_abs_error"][precision] > 0
    assert "onnxruntime" in conversion.versions


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_same_model_gives_the_same_bytes(precision: str, tmp_path: Path) -> None:
    first, second = (
        reduced(classifier(), tmp_path, precision, IMAGES)[0].SerializeToString() for _ in range(2)
    )
    assert first == second


def test_int8_has_a_scale_per_channel_and_no_pair_at_the_output(tmp_path: Path) -> None:
    small, _, _ = reduced(classifier(), tmp_path, "int8", IMAGES)
    tensors = {t.name: t for t in small.graph.initializer}
    assert tensors["w2_quantized"].data_type == TensorProto.INT8
    assert list(tensors["w2_scale"].dims) == [32]
    assert np.abs(numpy_helper.to_array(tensors["w2_quantized"])).max() <= 64, "seven bits"
    last = next(n for n in small.graph.node if n.name == "head")
    assert readers(small, last.output[0]) == {"Identity"}
    assert readers(small, "x") == {"QuantizeLinear"}


def test_int8_for_tensorrt_is_centred(tmp_path: Path) -> None:
    small, _, references = reduced(classifier(), tmp_path, "int8", IMAGES, symmetric=True)
    zeros = [t for t in small.graph.initializer if t.name.endswith("zero_point")]
    assert zeros
    assert all(not numpy_helper.to_array(zero).any() for zero in zeros)
    assert "Relu" in {n.op_type for n in small.graph.node}
    for n in small.graph.node:
        if n.op_type == "Conv":
            assert readers(small, n.output[0]) == {"Relu"}, "rounded behind it alone"
    assert margin(small, references) < 1


def test_an_older_opset_is_lifted(tmp_path: Path) -> None:
    small, _, references = reduced(classifier(opset=11), tmp_path, "int8", IMAGES)
    assert small.opset_import[0].version == 13
    assert margin(small, references) < 1


def test_int8_that_loses_too_much_is_refused_with_the_layer(tmp_path: Path) -> None:
    x = random(24, 2) * np.float32([1e6, 1e-2])
    with pytest.raises(ValidationFailedError) as caught:
        reduced(regression(), tmp_path, "int8", x)
    error = caught.value
    assert (error.kind, error.exit_code) == ("precision", 3)
    assert "loses too much in head" in error.message
    assert "times its budget" in error.message
    assert "fp16" in error.hint


def test_only_what_loses_too_much_keeps_float32(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", ["x", "w"], ["a"], name="wide"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Gemm", ["r", "v"], ["b"], name="narrow"),
        node("Tanh", ["b"], ["t"], name="tanh"),
        node("Gemm", ["t", "u"], ["y"], name="last"),
    ]
    weights = random(2, 32) * np.float32([[1e-6], [1e2]])
    given = model(
        nodes,
        {"w": weights, "v": random(32, 32, seed=1) / 6, "u": random(32, 3, seed=2) / 6},
        [2],
        [3],
    )
    x = random(24, 2) * np.float32([1e6, 1e-2])
    small, conversion, references = reduced(given, tmp_path, "int8", x)
    kept = conversion.facts["reduced"]["kept_float32"]
    assert "wide" in kept
    assert not {"narrow", "last"} & set(kept)
    assert readers(small, "x") == {"Gemm"}, "it is not rounded before a node that keeps float32"
    assert margin(small, references) < 1
    assert any("wide" in note and "float32" in note for note in conversion.notes)


def test_a_node_that_keeps_float32_is_given_the_activation(tmp_path: Path) -> None:
    """The quantizer makes activations part of the rounding, and leaves them out."""
    from exporter.formats.precision.int8 import quantizer
    from exporter.formats.precision.onnx_io import read
    from exporter.formats.precision.qdq import add_output_identities

    class Folder:
        folder = tmp_path

        def inputs(self) -> Any:
            return iter([{"x": IMAGES}])

    onnx.save(classifier(), tmp_path / "model.onnx")
    plain = add_output_identities(read(tmp_path / "model.onnx"))
    bench: Any = Folder()
    small = quantizer(plain, bench, (), symmetric=False)(["head", "average", "flatten"])
    onnx.checker.check_model(small, full_check=True)
    assert [n.op_type for n in small.graph.node].count("Relu") == 1
    # With one convolution in int8 only, what is left of the error is small.
    exact = ort.InferenceSession(classifier().SerializeToString()).run(None, {"x": IMAGES})[0]
    found = ort.InferenceSession(small.SerializeToString()).run(None, {"x": IMAGES})[0]
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_float16_keeps_what_overflows_and_says_so(tmp_path: Path) -> None:
    given = model(
        [
            node("Gemm", ["x", "w"], ["a"], name="layer"),
            node("Mul", ["a", "up"], ["b"], name="up"),
            node("Mul", ["b", "down"], ["y"], name="down"),
        ],
        {"w": random(4, 64), "up": np.float32(5e4), "down": np.float32(1e-4)},
        [4],
        [64],
    )
    small, conversion, references = reduced(given, tmp_path, "fp16", random(24, 4))
    assert conversion.facts["reduced"]["kept_float32"] == ["up", "down"]
    assert any("up, down keep float32: numbers are too large" in n for n in conversion.notes)
    types = {t.name: t.data_type for t in small.graph.initializer}
    assert types == {
        "w.half": TensorProto.FLOAT16, "up": TensorProto.FLOAT, "down": TensorProto.FLOAT
    }  # fmt: skip
    assert margin(small, references) < 1


def test_float16_keeps_what_rounding_ruins(tmp_path: Path) -> None:
    """The difference of two large sums: neither overflows, and both are rounded to nothing."""
    given = model(
        [
            node("Gemm", ["x", "w"], ["a"], name="layer"),
            node("Add", ["a", "much"], ["b"], name="up"),
            node("Sub", ["b", "much"], ["c"], name="down"),
            node("Gemm", ["c", "v"], ["y"], name="head"),
        ],
        {"w": random(4, 64), "v": random(64, 3, seed=1), "much": np.float32(3e4)},
        [4],
        [3],
    )
    small, conversion, references = reduced(given, tmp_path, "fp16", random(24, 4))
    kept = conversion.facts["reduced"]["kept_float32"]
    assert {"up", "down"} <= set(kept)
    assert "head" not in kept
    assert any("rounding loses too much there" in note for note in conversion.notes)
    assert margin(small, references) < 1


def test_float16_is_refused_where_nothing_of_weight_is_left(tmp_path: Path) -> None:
    x = random(24, 2) * np.float32([1e6, 1e-2])
    with pytest.raises(ValidationFailedError, match="fp16 loses too much in head") as caught:
        reduced(regression(), tmp_path, "fp16", x)
    assert "--precision fp32" in caught.value.hint


def test_a_kernel_that_refuses_halves_keeps_float32(tmp_path: Path) -> None:
    given = model(
        [
            node("MatMul", ["x", "w"], ["a"], name="layer"),
            node("ScatterElements", ["a", "places", "updates"], ["y"], name="scatter", axis=1,
                 reduction="add"),
        ],
        {"w": random(4, 4), "places": np.zeros((1, 1), np.int64),
         "updates": np.ones((1, 1), np.float32)},
        [4],
        [4],
    )  # fmt: skip
    _, conversion, _ = reduced(given, tmp_path, "fp16", random(24, 4))
    assert conversion.facts["reduced"]["kept_float32"] in ([], ["scatter"])


@pytest.mark.parametrize(("triton", "kept"), [("23.10", ["soft"]), ("24.10", [])])
def test_what_an_old_release_cannot_load_keeps_float32(
    triton: str, kept: list[str], tmp_path: Path
) -> None:
    given = model(
        [
            node("MatMul", ["x", "w"], ["a"], name="layer"),
            node("Softmax", ["a"], ["y"], name="soft"),
        ],
        {"w": random(4, 4)},
        [4],
        [4],
    )
    _, conversion, _ = reduced(given, tmp_path, "fp16", random(24, 4), triton=triton)
    assert conversion.facts["reduced"]["kept_float32"] == kept


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_model_with_nothing_to_reduce_is_refused(precision: str, tmp_path: Path) -> None:
    given = model([node("Gelu", ["x"], ["y"], domain="com.microsoft")], {}, [4], [4])
    given.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ValidationFailedError, match=f"nothing in the model .* {precision}"):
        reduced(given, tmp_path, precision, random(24, 4))


def test_what_is_wrong_already_is_not_blamed_on_the_precision(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailedError, match="in float32 already") as caught:
        reduced(classifier(), tmp_path, "fp16", IMAGES, wrong=1.0)
    assert caught.value.kind == "parity"


def test_files_that_are_hardly_smaller_are_worth_a_note(tmp_path: Path) -> None:
    given = model([node("Gemm", ["x", "w"], ["y"], name="g")], {"w": random(4, 2)}, [4], [2])
    _, conversion, _ = reduced(given, tmp_path, "int8", random(24, 4))
    assert any("little is gained" in note for note in conversion.notes)
