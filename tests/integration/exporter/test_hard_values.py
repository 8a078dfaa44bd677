"""Operators at the values at which implementations differ: served right there, or refused.

Every example is harmless, so that only what the proof draws by itself can show a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from exporter.sources.pytorch.decompositions import value_ops
from exporter.triton.server import TritonServer
from tests.support.registering import RegistryFixture

from .test_refused import model_of

pytestmark = pytest.mark.triton

RANDOM = np.random.default_rng(5)
X, Y = (RANDOM.uniform(0.2, 0.8, size=(4, 4)).astype(np.float32) for _ in range(2))
NAN, INF = np.nan, np.inf

Function = Callable[..., torch.Tensor]


class Outputs(nn.Module):
    """Several functions of the same inputs, one output each."""

    def __init__(self, functions: Sequence[Function]) -> None:
        super().__init__()
        self.functions = tuple(functions)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(function(x) for function in self.functions)


class OutputsOfTwo(Outputs):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(function(x, y) for function in self.functions)


def rows(*values: float) -> np.ndarray:
    """Return rows full of a value, and one with all of them among usual ones."""
    full = np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)
    mixed = np.resize(np.array(values, np.float32), (len(values), 4)).copy()
    mixed[:, 1] = 0.25
    return np.concatenate([full, mixed])


OF_ONE: Mapping[str, tuple[Sequence[Function], np.ndarray]] = {
    "exponents": (
        [
            lambda x: x.logsumexp(1),
            nn.functional.logsigmoid,
            lambda x: nn.functional.softplus(x).log1p(),
        ],
        rows(20.0, 21.0, -21.0, 89.0, 100.0, -105.0, 200.0, -200.0, 1000.0, -1000.0),
    ),
    "tiny": (
        # Scaled, since a wrong 1e-8 is within any budget.
        [lambda x: x.log1p() * 1e5, lambda x: (x * 0.25).expm1() * 1e5],
        rows(1e-8, -1e-8, 1e-5, -1e-5, 0.0, -0.0),
    ),
    "decimals": (
        [lambda x: x // 0.1, lambda x: torch.remainder(x, 0.1), lambda x: x.round() + x.floor()],
        rows(0.3, 0.6, 0.7, -0.3, -0.7, 0.5, 1.5, 2.5, -0.5, 7.0, -7.0),
    ),
    "missing": (
        [
            lambda x: x.amax(1),
            lambda x: x.argmax(1),
            lambda x: x.median(1)[0],
            lambda x: torch.searchsorted(torch.tensor([0.25, 0.5, 0.75]), x),
            torch.sign,
            lambda x: torch.where(x > 0.5, x, -x),
            lambda x: x.clamp(0.1, 0.7).nan_to_num(),
        ],
        rows(NAN, INF, -INF, 0.0, -1.0),
    ),
    "roots": (
        [torch.sqrt, torch.rsqrt, torch.log, torch.reciprocal, lambda x: x**3],
        rows(0.0, -0.0, -1.0, INF, NAN, 1e-40),
    ),
}
AXES = np.array([0.0, -0.0, 1.0, -1.0, 200.0, -200.0, INF, -INF, NAN], np.float32)
PAIRS = [np.repeat(grid.reshape(-1, 1), 4, axis=1) for grid in np.meshgrid(AXES, AXES)]
OF_TWO: Sequence[Function] = [torch.atan2, torch.logaddexp, torch.maximum]


def served_right(
    lab: RegistryFixture, server: TritonServer, name: str, module: nn.Module, *hard: np.ndarray
) -> bool:
    """Export, and compare what is served with torch; whether it is served, and not refused."""
    result = lab.export(name, prove_on=server.grpc_url, triton_urls=(server.grpc_url,))
    if result.status != "promoted":
        error: Any = result.error
        assert result.exit_code == 3, error
        assert error["kind"] == "parity", error
        return False
    with torch.no_grad():
        expected = module(*(torch.from_numpy(array) for array in hard))
    with server.client() as client:
        model = client.model(name)
        inputs = [spec.name for spec in model.spec.inputs]
        found = list(model.infer(dict(zip(inputs, hard, strict=True))).values())
    for place, (answer, reference) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(
            answer.reshape(reference.shape),  # numbers travel as [rows, 1]
            reference.numpy(),
            rtol=2e-4,
            atol=2e-5,
            err_msg=f"{name}, output {place}",
        )
    return True


def test_operators_are_right_at_hard_values(lab: RegistryFixture, server: TritonServer) -> None:
    served = {}
    for name, (functions, hard) in OF_ONE.items():
        module = Outputs(functions).eval()
        lab.register_torch(name, module, X)
        served[name] = served_right(lab, server, name, module, hard)
    module = OutputsOfTwo(OF_TWO).eval()
    lab.register_torch("two", module, X, Y)
    served["two"] = served_right(lab, server, "two", module, *PAIRS)
    assert all(served.values()), f"refused although there is a right form: {served}"


def test_a_converter_s_own_form_is_refused(
    lab: RegistryFixture, server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right forms, the proof sees what the example does not show."""
    monkeypatch.setattr(value_ops, "is_wrong", lambda _: False)
    functions: Mapping[str, Function] = {
        "logsigmoid": nn.functional.logsigmoid,
        "quotient": lambda x: x // 0.1,
        "largest": lambda x: x.amax(1),
        "place": lambda x: x.argmax(1),
        "sign": torch.sign,
    }
    served = []
    for name, function in functions.items():
        lab.register_torch(f"plain-{name}", Outputs([function]).eval(), X)
        result = lab.export(f"plain-{name}", prove_on=server.grpc_url)
        served += [name] if result.status == "promoted" else []
        assert served or (result.error or {})["kind"] == "parity", result.error
    assert not served


def test_negative_whole_numbers(lab: RegistryFixture, server: TritonServer) -> None:
    example = np.array([[-9, 9], [8, -8], [-4, 4], [6, 6]])
    module = Outputs([lambda n: n // 2, lambda n: n % 3, lambda n: (n / 2).trunc()]).eval()
    lab.register_torch("whole", module, example)
    hard = np.array([[-7, 7], [-1, 1], [-3, 3], [-2, 2]])
    assert served_right(lab, server, "whole", module, hard)


def branching(decides: str) -> Any:
    """An ONNX file whose branch depends on the batch's values, or on its number of columns."""
    arms = {
        name: helper.make_graph(
            [helper.make_node(operator, ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, operator in (("then", "Tanh"), ("else", "Identity"))
    }
    deciding = {
        "values": [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "limit"], ["large"]),
        ],
        "sizes": [
            helper.make_node("Shape", ["x"], ["shape"], start=1, end=2),
            helper.make_node("Squeeze", ["shape"], ["columns"]),
            helper.make_node("Greater", ["columns", "few"], ["large"]),
        ],
    }[decides]
    choice = helper.make_node(
        "If", ["large"], ["y"], then_branch=arms["then"], else_branch=arms["else"]
    )
    constants = [
        helper.make_tensor("limit", TensorProto.FLOAT, [], [1e6]),
        helper.make_tensor("few", TensorProto.INT64, [], [3]),
    ]
    return model_of([*deciding, choice], [None, 4], [None, 4], initializers=constants)


def test_an_onnx_branch_is_not_batched_where_values_decide(lab: RegistryFixture) -> None:
    for decides, batching in (("values", "off"), ("sizes", "dynamic")):
        lab.register_onnx(f"by-{decides}", branching(decides), example=X)
        result = lab.export(f"by-{decides}")
        assert result.status == "promoted", result.error
        assert (result.parity or {})["batching"] == batching
        if batching == "off":
            assert "an If node decides by the values" in (result.parity or {})["batching_reason"]
