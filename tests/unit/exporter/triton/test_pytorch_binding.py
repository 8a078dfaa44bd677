"""What the pytorch backend makes of a configuration, before it runs anything."""

from __future__ import annotations

import sysconfig
from typing import Any

import pytest
import torch

from exporter.triton.backends.pytorch.binding import bind
from exporter.triton.backends.pytorch.lending import _Lender
from exporter.triton.backends.pytorch.parameters import Parameters
from exporter.triton.backends.shared import errors


def schema(*arguments: str) -> Any:
    """The schema of a script with arguments of these types."""
    listed = ", ".join(f"{kind} {name}" for kind, name in zip(arguments, "xyz", strict=False))
    return torch._C.parse_schema(f"forward({listed}) -> Tensor")


ONE, TWO = schema("Tensor"), schema("Tensor", "Tensor")


def config(inputs: str, outputs: str = "OUTPUT__0", **more: Any) -> dict[str, Any]:
    """A configuration; a name may be followed by ``:`` and a data type."""

    def entries(names: str) -> list[dict[str, Any]]:
        pairs = (name.partition(":") for name in names.split())
        return [{"name": n, "data_type": f"TYPE_{kind or 'FP32'}"} for n, _, kind in pairs]

    return {"name": "m", "input": entries(inputs), "output": entries(outputs), **more}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("INPUT__0 INPUT__1", [0, 1]),
        ("INPUT__1 INPUT__0", [1, 0]),
        ("y x", [1, 0]),
        # Neither all names of arguments nor all numbered: as they stand.
        ("y INPUT__0", [0, 1]),
        ("left right", [0, 1]),
        ("left__a right__0", [0, 1]),
    ],
)
def test_which_argument_an_input_is(inputs: str, expected: list[int]) -> None:
    assert list(bind(config(inputs), TWO).inputs.values()) == expected


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [("OUTPUT__1 OUTPUT__0", [1, 0]), ("b a", [0, 1]), ("OUTPUT__2", [2]), ("OUTPUT__1 b", [0, 1])],
)
def test_which_result_an_output_is(outputs: str, expected: list[int]) -> None:
    assert list(bind(config("INPUT__0", outputs), ONE).outputs.values()) == expected


def test_one_dict_takes_any_names() -> None:
    found = bind(config("a b c"), schema("Dict(str, Tensor)"))
    assert found.as_dict
    assert list(found.inputs) == ["a", "b", "c"]


def test_controls_of_a_sequence_are_inputs() -> None:
    control = {
        "name": "START__1",
        "control": [{"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0, 1]}],
    }
    found = bind(config("INPUT__0", sequence_batching={"control_input": [control]}), TWO)
    assert dict(found.inputs) == {"INPUT__0": 0, "START__1": 1}
    control["name"] = "START"
    with pytest.raises(errors.InternalError, match="does not follow <name>__<index>"):
        bind(config("INPUT__0", sequence_batching={"control_input": [control]}), TWO)


@pytest.mark.parametrize(
    ("given", "arguments", "words"),
    [
        (config("INPUT__0 INPUT__1"), ONE, "expects 2 inputs, model provides 1"),
        (config("INPUT__0"), TWO, "expects 1 inputs, model provides 2"),
        (config("INPUT__0 OTHER__0"), TWO, "do not refer to the 2 arguments"),
        (config("INPUT__0 INPUT__2"), TWO, "do not refer to the 2 arguments"),
        (config(""), schema(), "at least one input"),
        (config("INPUT__0", ""), ONE, "at least one output"),
        (config("INPUT__0:UINT32"), ONE, "unsupported datatype TYPE_UINT32 for input 'INPUT__0'"),
        (config("INPUT__0", "OUTPUT__0:BF16"), ONE, "unsupported datatype TYPE_BF16 for output"),
        (config("INPUT__0:STRING"), ONE, "lists of strings are not available"),
        (config("INPUT__0"), schema("int"), "An input of type 'int' was detected"),
        (config("a b"), schema("Tensor", "Dict(str, Tensor)"), "Multiple inputs of kind DictType"),
        (
            config("INPUT__0", sequence_batching={"state": [{"input_name": "INPUT__1"}]}),
            ONE,
            "implicit state is not available",
        ),
    ],
)
def test_what_is_refused(given: dict[str, Any], arguments: Any, words: str) -> None:
    with pytest.raises(errors.BackendError) as refusal:
        bind(given, arguments)
    assert words in str(refusal.value)


def parameters(**values: str) -> Parameters:
    return Parameters.of(
        {"parameters": {key: {"string_value": value} for key, value in values.items()}}
    )


def test_parameters() -> None:
    plain = parameters()
    assert (plain.optimized, plain.inference_mode, plain.intra_threads) == (True, True, 0)
    assert plain.switches == {}
    given = parameters(
        DISABLE_OPTIMIZED_EXECUTION="true",
        INFERENCE_MODE="off",
        INTRA_OP_THREAD_COUNT="2",
        INTER_OP_THREAD_COUNT="-1",
        ENABLE_JIT_PROFILING="0",
        UNKNOWN="whatever",
    )
    assert (given.optimized, given.inference_mode) == (False, False)
    assert (given.intra_threads, given.inter_threads) == (2, 0)
    assert given.switches == {"ENABLE_JIT_PROFILING": False}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("INFERENCE_MODE", "maybe", "failed to convert 'maybe' to boolean"),
        ("DISABLE_CUDNN", "2", "failed to convert '2' to boolean"),
        ("INTRA_OP_THREAD_COUNT", "many", "failed to convert 'many' to integral number"),
    ],
)
def test_parameters_that_make_no_sense(name: str, value: str, words: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=words):
        parameters(**{name: value})


def test_torch_is_lent_and_nothing_beside_it() -> None:
    lender = _Lender(sysconfig.get_path("purelib"))
    found = lender.find_spec("torch")
    assert found is not None
    assert found.origin == torch.__file__
    # Another numpy would give wrong values.
    for name in ("numpy", "onnx", "mlflow", "no_such_package"):
        assert lender.find_spec(name) is None
    assert lender.find_spec("torch.nn", [""]) is None
