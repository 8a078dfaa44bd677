"""Models and examples that look harmless: what is served must still be what was registered."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.models import infer_signature
from onnx import helper, numpy_helper
from torch import nn

from exporter.arrays import read_npz
from tests.support.models import ROWS
from tests.support.registering import RegistryFixture

from .test_never_batched import Applied, unbatched
from .test_refused import Linear, model_of, refused

pytestmark = pytest.mark.triton

RANDOM = np.random.default_rng(11)


class Embedded(nn.Module):
    """Looks whole numbers up and takes the batch's mean from them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table = nn.Embedding(5, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        looked_up = self.table(ids).sum(1)
        return looked_up - looked_up.mean(0)


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(np.ones((4, 8), np.int64), id="ones"),
        pytest.param(np.zeros((4, 8), np.int64), id="zeros"),
        pytest.param(np.tile(np.arange(5), (3, 1)), id="the-same-row"),
    ],
)
def test_mixing_is_seen_though_the_example_s_rows_are_equal(
    lab: RegistryFixture, example: np.ndarray, request: pytest.FixtureRequest
) -> None:
    name = f"equal-{request.node.callspec.id}"
    lab.register_torch(name, Embedded().eval(), example)
    assert "rows depend on each other" in unbatched(lab, name)


def test_rows_that_cannot_be_made_to_differ_are_not_batched(lab: RegistryFixture) -> None:
    class OneValue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids).sum(1)

    lab.register_torch("one-value", OneValue().eval(), np.zeros((4, 2), np.int64))
    assert "--samples" in unbatched(lab, "one-value")


def test_columns_of_very_different_size(lab: RegistryFixture) -> None:
    class Standardised(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scaled = (x - torch.tensor([55_000.0, 0.035])) / torch.tensor([20_000.0, 0.015])
            inner = scaled.clamp(-2, 2)
            return inner - inner.mean(0)

    example = np.stack([RANDOM.uniform(2e4, 9e4, 6), RANDOM.uniform(0.01, 0.06, 6)], 1)
    lab.register_torch("columns", Standardised().eval(), example.astype(np.float32))
    assert "rows depend on each other" in unbatched(lab, "columns")


def test_channels_of_very_different_size_of_any_length(lab: RegistryFixture) -> None:
    class TwoScales(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([1e6 * x.tanh(), x.tanh() - x.tanh().mean(0)], -1)

    example = RANDOM.normal(size=(4, 5)).astype(np.float32)
    signature = infer_signature(example, np.zeros((4, 5, 2), np.float32))
    signature.inputs.inputs[0]._shape = (-1, -1)
    signature.outputs.inputs[0]._shape = (-1, -1, 2)
    lab.register_torch("two-scales", TwoScales().eval(), example, signature=signature)
    assert "rows depend on each other" in unbatched(lab, "two-scales")


def test_an_exponential(lab: RegistryFixture) -> None:
    function = Applied(lambda x: (3 * x).exp() + 1e-2 * x.mean(0))
    lab.register_torch("exp", function.eval(), ROWS)
    assert "rows depend on each other" in unbatched(lab, "exp")


class Quotient(nn.Module):
    def forward(self, price: torch.Tensor, quantity: torch.Tensor) -> torch.Tensor:
        return price / quantity


PRICE, QUANTITY = (RANDOM.uniform(1, 9, size=(4, 1)).astype(np.float32) for _ in range(2))


def test_names_in_another_order_are_names_all_the_same(lab: RegistryFixture) -> None:
    signature = infer_signature({"quantity": QUANTITY, "price": PRICE}, PRICE / QUANTITY)
    lab.register_torch("swapped", Quotient().eval(), PRICE, QUANTITY, signature=signature)
    result = lab.export("swapped")
    assert result.status == "promoted", result.error
    samples = read_npz(lab.folder / "repository" / "swapped" / "1" / "samples.npz")
    np.testing.assert_array_equal(samples["example/input/price"], PRICE)
    np.testing.assert_allclose(samples["example/output/output"], PRICE / QUANTITY, rtol=1e-6)


def test_names_of_which_some_have_moved_are_refused(lab: RegistryFixture) -> None:
    signature = infer_signature({"quantity": QUANTITY, "cost": PRICE}, PRICE / QUANTITY)
    lab.register_torch("moved", Quotient().eval(), PRICE, QUANTITY, signature=signature)
    refused(lab, "moved", "'quantity' stands in another place")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("noise-if-large", lambda x: torch.where(x > 50, torch.randn_like(x), x)),
        ("faint-dropout", lambda x: nn.functional.dropout(x, 1e-6, training=True)),
        ("leaky-noise", lambda x: nn.functional.rrelu(x, 0.1, 0.1 + 1e-6, training=True)),
        (
            "faint-attention",
            lambda x: nn.functional.scaled_dot_product_attention(
                x[:, None, :, None], x[:, None, :, None], x[:, None, :, None], dropout_p=1e-6
            ),
        ),
    ],
)
def test_noise_that_no_input_shows(
    lab: RegistryFixture, name: str, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    module = Applied(function).eval()
    with torch.no_grad():
        answer = module(torch.from_numpy(ROWS)).numpy()
    lab.register_torch(name, module, ROWS, signature=infer_signature(ROWS, answer))
    refused(lab, name, "")


def test_attention_that_draws_nothing_is_served(lab: RegistryFixture) -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.1).eval()
    example = RANDOM.normal(size=(3, 4, 6)).astype(np.float32)
    lab.register_torch("encoder", layer, example)
    result = lab.export("encoder")
    assert (result.parity or {}).get("batching") == "dynamic", result.error


@pytest.mark.parametrize("switch", [True, False])
def test_dropout_in_an_onnx_file(lab: RegistryFixture, switch: bool) -> None:
    constants = [
        numpy_helper.from_array(np.array(0.0, np.float32), "ratio"),
        numpy_helper.from_array(np.array(switch), "training"),
    ]
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])]
    name = f"onnx-dropout-{switch}"
    lab.register_onnx(
        name, model_of(nodes, [None, 6], [None, 6], initializers=constants), example=ROWS
    )
    if switch:
        refused(lab, name, "training mode")
    else:
        assert lab.export(name).status == "promoted"


def test_noise_inside_a_condition_of_an_onnx_file(lab: RegistryFixture) -> None:
    def arm(operator: str) -> object:
        return helper.make_graph(
            [helper.make_node(operator, ["x"], ["out"])],
            operator,
            [],
            [helper.make_tensor_value_info("out", 1, None)],
        )

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["large"]),
        helper.make_node(
            "If", ["large"], ["y"], then_branch=arm("RandomNormalLike"), else_branch=arm("Identity")
        ),
    ]
    limit = [numpy_helper.from_array(np.array(1e9, np.float32), "limit")]
    lab.register_onnx(
        "onnx-hidden-noise", model_of(nodes, [None, 6], [None, 6], initializers=limit), example=ROWS
    )
    refused(lab, "onnx-hidden-noise", "draws numbers")


def test_the_example_of_an_onnx_model_is_asked(lab: RegistryFixture) -> None:
    """A convolution needs the example's length; inputs of length two would be refused."""
    weight = numpy_helper.from_array(RANDOM.normal(size=(1, 1, 7)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = model_of(nodes, [None, 1, None], [None, 1, None], initializers=[weight])
    for value, length in ((model.graph.input[0], "length"), (model.graph.output[0], "shorter")):
        value.type.tensor_type.shape.dim[2].dim_param = length
    example = RANDOM.normal(size=(2, 1, 20)).astype(np.float32)
    lab.register_onnx("convolution", model, example=example)
    result = lab.export("convolution")
    assert result.status == "promoted", result.error
    samples = read_npz(lab.folder / "repository" / "convolution" / "1" / "samples.npz")
    np.testing.assert_array_equal(samples["example/input/x"], example)


def test_masks_are_the_example_s(lab: RegistryFixture) -> None:
    """A row that is masked whole has no answer, and nobody asks it."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x, key_padding_mask=mask)[0]

    x = RANDOM.normal(size=(3, 5, 4)).astype(np.float32)
    mask = np.arange(5)[None, :] >= np.array([[3], [5], [2]])
    lab.register_torch("masked", Attention().eval(), x, mask)
    result = lab.export("masked")
    assert (result.parity or {}).get("batching") == "dynamic", result.error


def test_pt2_that_writes_files(lab: RegistryFixture, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    lab.register_torch("writer", Linear().eval(), ROWS)
    archive = lab.artifact("writer") / "data" / "model.pt2"
    with zipfile.ZipFile(archive) as held:
        content = {name: held.read(name) for name in held.namelist()}
    (graph,) = (name for name in content if name.endswith("models/model.json"))
    program = json.loads(content[graph])
    program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"
    content[graph] = json.dumps(program).encode()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as changed:
        for name, data in content.items():
            changed.writestr(name, data)
    refused(lab, "writer", "not a tensor operator")
    assert victim.read_bytes() == b"precious"
