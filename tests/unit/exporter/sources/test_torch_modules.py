"""How an eager module is asked, what of it varies, and what it remembers."""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from exporter.errors import ValidationFailedError
from exporter.sources.base import OnnxTarget
from exporter.sources.pytorch import decompositions as forms
from exporter.sources.pytorch.call_convention import bind_inputs
from exporter.sources.pytorch.decompositions import complex_ops as complexes
from exporter.sources.pytorch.decompositions import float64_ops as wide
from exporter.sources.pytorch.determinism import data_dependence
from exporter.sources.pytorch.dynamic_axes import infer_dynamic_axes
from exporter.sources.pytorch.module_source import ModuleSource
from exporter.sources.pytorch.side_effects import (
    check_no_external_reads,
    check_no_rng,
    reads_values,
    rng_states,
)
from exporter.sources.pytorch.statefulness import check_first_call, check_stateless, copy_unrun

X = torch.arange(12.0).reshape(4, 3)
TARGET = OnnxTarget(opset=18, ir=8, max_opset=18, max_ir=8)


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + 2 * b


class Batch(nn.Module):
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["a"] + 2 * batch["b"]


@pytest.mark.parametrize(
    ("module", "names", "way"),
    [
        (Sum(), ["a", "b"], "position"),
        (Sum(), ["b", "a"], "keyword"),
        (Sum(), ["first", "second"], "position"),
        (Batch(), ["a", "b"], "dict"),
    ],
)
def test_how_a_module_takes_its_inputs(module: nn.Module, names: list[str], way: str) -> None:
    called = bind_inputs(module, names, [X, X + 1])
    assert called.convention == way
    (answer,) = called(X, X + 1)
    expected = X + 1 + 2 * X if names == ["b", "a"] else X + 2 * (X + 1)
    assert torch.equal(answer, expected)


def test_a_module_that_takes_them_in_no_way() -> None:
    with pytest.raises(RuntimeError, match="size"):
        bind_inputs(Sum(), ["a", "b"], [X, torch.ones(5, 7)])


def ask(module: nn.Module) -> Any:
    return lambda tensors: list(module(*tensors))


class Windows(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(1), torch.cat([x, y], dim=1)


def test_sizes_that_vary_are_found_by_asking() -> None:
    inputs, outputs, _ = infer_dynamic_axes(ask(Windows()), [X, X[:, :2]], [[0, 1], [0]])
    rows, width = inputs[0]
    assert inputs == [(rows, width), (rows, 2)]
    assert isinstance(rows, str)
    assert isinstance(width, str)
    assert outputs[0] == (rows,)
    assert outputs[1][0] == rows
    assert isinstance(outputs[1][1], str), "it grows with the width"


class TwoRows(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x.view(2, -1),)


def test_a_size_that_the_module_refuses_to_change_is_fixed() -> None:
    def only_four(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        if len(tensors[0]) != 4:
            raise ValueError("four rows, please")
        return list(TwoRows()(*tensors))

    inputs, outputs, _ = infer_dynamic_axes(only_four, [X], [[0]])
    assert (inputs, outputs) == ([(4, 3)], [(2, 6)])


class Grouped(nn.Module):
    """Takes a fixed number of items for each user; halves the users."""

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, ...]:
        own = items.reshape(len(users), 5, 3).mean(1)
        return users + own, items * 2, users[: len(users) // 2]


def test_sizes_that_vary_only_together_are_multiples() -> None:
    for rows in (1, 4):
        inputs, outputs, grown = infer_dynamic_axes(
            ask(Grouped()), [torch.ones(rows, 3), torch.ones(5 * rows, 3)], [[0], [0]]
        )
        assert inputs == [("rows", 3), ("5*rows", 3)]
        assert all(isinstance(axes[0], str) for axes in outputs)
        assert [len(tensor) for tensor in grown] == [max(rows, 2), max(5 * rows, 10)]


def test_an_example_of_one_row_is_grown_before_it_is_traced() -> None:
    *_, grown = infer_dynamic_axes(ask(Windows()), [X[:1], X[:1]], [[0], [0]])
    assert [len(tensor) for tensor in grown] == [2, 2]
    assert torch.equal(grown[0][0], grown[0][1]), "of its own values"


class Remembers(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.calls, self.log, self.cache = 0, [], None
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.what == "counter":
            self.calls += 1
        if self.what == "list":
            self.log.append(float(x.sum()))
        if self.what == "average":
            self.average.mul_(0.9).add_(x.mean(0))
        if self.what == "cache":
            self.cache = torch.ones(3) if self.cache is None else self.cache
        return x


@pytest.mark.parametrize(
    ("what", "name"), [("counter", "calls"), ("list", "log"), ("average", "average")]
)
def test_a_module_that_remembers_is_refused_by_name(what: str, name: str) -> None:
    module = Remembers(what)
    with pytest.raises(ValidationFailedError, match=f"'{name}'"):
        check_stateless(module, lambda: module(X))


def test_a_cache_is_no_memory() -> None:
    module = Remembers("cache")
    check_stateless(module, lambda: module(X))


def test_the_error_function_in_float64() -> None:
    x = torch.cat([torch.linspace(-9, 9, 4001), torch.tensor([0.46875, -0.46875, 1e-300, 0.0])])
    x = x.double()
    expected = np.array([math.erf(value) for value in x.tolist()])
    np.testing.assert_allclose(wide._erf(x).numpy(), expected, rtol=1e-13, atol=3e-17)
    assert wide._erf(torch.tensor([math.inf, -math.inf]).double()).tolist() == [1.0, -1.0]
    gelu = nn.functional.gelu(x)
    np.testing.assert_allclose(wide._gelu(x).numpy(), gelu.numpy(), rtol=1e-12, atol=1e-15)


def test_products_of_complex_tensors_by_real_ones() -> None:
    a = torch.randn(2, 3, 4, dtype=torch.complex64)
    b = torch.randn(4, 5, dtype=torch.complex64)
    for left, right in ((a, b), (a, b.real), (a.real, b)):
        expected = torch.matmul(left.to(a.dtype), right.to(a.dtype))
        torch.testing.assert_close(complexes._matmul(left, right), expected)
        equation = "bij,jk->bik"
        torch.testing.assert_close(complexes._einsum(equation, [left, right]), expected)
    assert complexes._matmul(a.real, b.real) is NotImplemented


class Hidden(nn.Module):
    """Counts where no attribute of a module shows it."""

    calls = 0
    everywhere: ClassVar[dict[str, int]] = {"calls": 0}

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self._calls = 0
        self.counts = {"calls": 0}
        self.numbers = itertools.count()
        self.drawn = np.random.default_rng(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.where == "_calls":
            self._calls += 1
        elif self.where == "counts":
            self.counts["calls"] += 1
        elif self.where == "numbers":
            next(self.numbers)
        elif self.where == "drawn":
            self.drawn.random()
        elif self.where == "calls":
            type(self).calls += 1
        elif self.where == "everywhere":
            self.everywhere["calls"] += 1
        else:
            COUNTS["calls"] += 1
        return x


COUNTS = {"calls": 0}


@pytest.mark.parametrize(
    "where", ["_calls", "counts", "numbers", "drawn", "calls", "everywhere", "COUNTS"]
)
def test_a_counter_is_found_wherever_it_is(where: str) -> None:
    module = Hidden(where)
    with pytest.raises(ValidationFailedError, match=f"'{where}'"):
        check_stateless(module, lambda: module(X))


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_script_that_counts_is_refused() -> None:
    module = torch.jit.script(Scripted())
    with pytest.raises(ValidationFailedError, match="'calls'"):
        check_stateless(module, lambda: module(X))


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            self.mean = x.mean()
        return x - self.mean


def test_what_was_asked_first_must_not_count() -> None:
    module = First()
    copied = copy_unrun(module)
    assert copied is not None
    answer = [module(X)]
    with pytest.raises(ValidationFailedError, match="its first call"):
        check_first_call(lambda given: [copied(*given)], [X], answer)
    check_first_call(lambda given: [given[0].relu()], [X], [X.relu()])


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.rand, lambda: torch.rand(2)],
)
def test_what_draws_numbers_is_refused(draw: Callable[[], object]) -> None:
    before = rng_states()
    check_no_rng(before, rng_states())
    draw()
    with pytest.raises(ValidationFailedError, match="draws random numbers"):
        check_no_rng(before, rng_states())


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (time.monotonic, "the clock"),
        (datetime.now, "the clock"),
        (lambda: os.environ.get("HOME"), "the environment"),
        (lambda: Path(__file__).read_bytes(), "files"),
        (os.getpid, "the machine"),
        (random.Random(1).random, "random numbers"),
    ],
)
def test_what_is_read_beside_the_inputs_is_refused(read: Callable[[], object], what: str) -> None:
    with pytest.raises(ValidationFailedError, match=what):
        check_no_external_reads(lambda: (X, read()))


def test_a_log_has_a_time_and_no_answer_of_it() -> None:
    check_no_external_reads(lambda: logging.getLogger("stlab-test").error("asked"))
    layer = nn.TransformerEncoderLayer(4, 2, batch_first=True).eval()
    check_no_external_reads(lambda: layer(torch.ones(2, 3, 4)))


PACKED = nn.GRU(1, 2, batch_first=True)


def packed(x: torch.Tensor, lengths: torch.Tensor) -> Any:
    lengths = lengths.clamp(max=x.shape[1])
    return nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize(
    ("reads", "module"),
    [
        (True, lambda x: x * 2 if torch.allclose(x, X) else x),
        (True, lambda x: torch.from_numpy((x + 1).numpy())),
        (True, lambda x: x * (x.sum().item() > 0)),
        (False, lambda x: x * torch.ones(()).item() + x.shape[0]),
        (False, lambda x: x[x > 0]),
        (False, lambda x: PACKED(packed(x[..., None], x[:, 0].long() + 1))[1]),
    ],
)
def test_numbers_made_of_the_inputs_are_seen(reads: bool, module: Any) -> None:
    assert reads_values(module, [X]) is reads


class Longest(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x != 0).sum(1).max().item()


class Checked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._check(x.sum().long().item() >= 0)
        return x * 2


def test_a_size_that_is_made_of_values_is_one_for_all_rows() -> None:
    assert "a number of its inputs" in data_dependence(torch.export.export(Longest(), (X + 1,)))
    assert not data_dependence(torch.export.export(Checked(), (X,)))


W = torch.randn(2, 4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LSTM = nn.LSTM(9, 3, bidirectional=True).double()
GRU = nn.GRU(9, 3, 2, batch_first=True).double()
PROJECTED = nn.LSTM(3, 6, batch_first=True, proj_size=2, bidirectional=True)
GROUPS = torch.tensor([[0, 2, 2]]).expand(4, 3)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.cummax(1),
        lambda x: x.cummin(-1),
        lambda x: (x.prod(1), x.prod(0, keepdim=True)),
        lambda x: torch.sort(x, dim=1, stable=True, descending=True),
        lambda x: torch.hypot(x, x + 1),
        lambda x: functional.rrelu(x - 5),
        lambda x: (torch.cdist(x, x + 1), torch.cdist(x, x, p=1.0)),
        lambda x: torch.zeros(4, 3).scatter_reduce(1, GROUPS, x, "mean", include_self=False),
        lambda x: torch.ones(4, 3).scatter_reduce(1, GROUPS, x, "mean"),
        lambda x: functional.adaptive_max_pool1d(x, 2, return_indices=True),
        lambda x: functional.adaptive_max_pool2d(x[None], (3, 2), return_indices=True),
        lambda x: torch.searchsorted(X, x + 0.5, right=True),
        lambda x: functional.conv1d(W + x.sum().double(), W[:, :2], padding=2, stride=3, groups=2),
        lambda x: LSTM(W + x.sum().double())[1][1],
        lambda x: GRU(W * x.sum().double())[0],
        lambda x: PROJECTED(x[None] / 9)[0],
    ],
)
def test_forms_answer_as_the_operators_that_they_replace(compute: Any) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return compute(x)

    program = torch.export.export(Model(), (X,))
    written = forms.decompose(program)
    assert written is not program
    for given in (X, -X, torch.zeros_like(X)):
        found, right = written.module()(given), program.module()(given)
        torch.testing.assert_close(pytree.tree_leaves(found), pytree.tree_leaves(right))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("pool", "axes"),
    [
        (lambda x: functional.adaptive_avg_pool1d(x.flatten(1, 2), 3), (3,)),
        (lambda x: functional.adaptive_avg_pool2d(x, (2, 3)), (2, 3)),
        (lambda x: functional.adaptive_avg_pool3d(x[:, None], (1, 2, 2)), (3,)),
        (lambda x: functional.adaptive_max_pool2d(x, (2, 2)), (2, 3)),
    ],
)
def test_pools_of_sizes_that_vary(pool: Any, axes: tuple[int, ...], tmp_path: Path) -> None:
    """With sizes that the example has not, and numbers of which nothing follows elsewhere."""

    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return pool(x)

    image = np.float32(np.random.default_rng(2).normal(size=(2, 3, 7, 8)))
    source = ModuleSource(Pool(), {"x": image}, {"x": (0, *axes)})
    session = written(source.onnx_exporters(TARGET), tmp_path / "model.onnx")
    sizes = itertools.product((1, 5), (7, 12, 2, 1) if 2 in axes else (7,), (8, 17, 3, 2))
    for shape in sizes:
        given = np.float32(np.random.default_rng(3).normal(size=(shape[0], 3, *shape[1:])))
        given[0, 0, 0, 0], given[-1, 1, -1, -1] = math.inf, -math.inf
        found = session.run(None, {"x": given})
        for one, right in zip(found, source.run({"x": given}).values(), strict=True):
            np.testing.assert_allclose(one, right, rtol=1e-5, atol=1e-6)


def test_pools_of_one_size_stay() -> None:
    layer = nn.AdaptiveAvgPool2d((2, 3))
    program = torch.export.export(layer, (torch.zeros(2, 3, 7, 8),))
    assert forms.decompose(program) is program


class Last(nn.Module):
    def __init__(self, layer: type[nn.Module], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = layer(3, 4, batch_first=True, **options)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        state = self.layer(packed(x, lengths))[1]
        return state[0][-1] if isinstance(state, tuple) else state[-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layer", "options"),
    [(nn.GRU, {}), (nn.LSTM, {"bidirectional": True}), (nn.RNN, {"num_layers": 2})],
)
def test_the_last_state_of_packed_sequences(
    tmp_path: Path, layer: type[nn.Module], options: Any
) -> None:
    module = Last(layer, **options).eval()
    x, lengths = np.float32(np.random.default_rng(0).normal(size=(4, 6, 3))), np.array([6, 3, 4, 1])
    source = ModuleSource(module, {"x": x, "lengths": lengths}, {"x": (0, 1), "lengths": (0,)})
    session = written(source.onnx_exporters(TARGET), tmp_path / "model.onnx")
    assert [value.name for value in session.get_outputs()] == ["output"]
    for rows in (1, 2, 5, 16):
        places = np.arange(rows)[::-1] % 4
        given = {"x": x[places, : lengths[places].max()], "lengths": lengths[places]}
        (right,) = source.run(given).values()
        (found,) = session.run(None, given)
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


class ByName(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if bool(x.sum() > 0):
            x = x * 2
        return {"b": x, "a": x.argmax(1)}


class Listed(nn.Module):
    def forward(self, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [given["x"], given["x"] + given["y"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [ByName, Listed])
def test_scripts_of_dicts_and_lists(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    names = ["x", "y"] if make is Listed else ["x"]
    example = {name: np.float32(X.numpy() + place) for place, name in enumerate(names)}
    source = ModuleSource(torch.jit.script(make()), example, dict.fromkeys(names, (0,)))
    session = written(source.onnx_exporters(TARGET), tmp_path / "model.onnx")
    for rows, sign in itertools.product((1, 2, 5, 16), (1, -1)):
        given = {n: np.resize(array * sign, (rows, 3)) for n, array in example.items()}
        found = dict(zip(source.run(given), session.run(None, given), strict=True))
        for name, right in source.run(given).items():
            np.testing.assert_array_equal(found[name], right)


def written(ways: Any, path: Path) -> ort.InferenceSession:
    """Go the first way that leads to a file."""
    for way in ways:
        try:
            way(path)
        except Exception:  # noqa: BLE001 - whatever a converter raises
            continue
        return ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    raise AssertionError("no way leads to a file")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [64, 336])
def test_transforms_of_any_length(length: int, tmp_path: Path) -> None:
    class Transforms(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return (
                torch.fft.irfft(torch.fft.rfft(x, dim=1)[:, :9], n=x.shape[1], dim=1),
                torch.fft.fft2(x, norm="ortho").abs(),
                torch.fft.ifft(torch.fft.fft(x, dim=1) * 2, dim=1).real,
            )

    draw = np.random.default_rng(4)
    x = np.float32(draw.normal(size=(2, length, 3)))
    source = ModuleSource(Transforms(), {"x": x}, {"x": (0,)})
    session = written(source.onnx_exporters(TARGET), tmp_path / "model.onnx")
    for rows in (1, 5):
        given = np.float32(draw.normal(size=(rows, length, 3)))
        all_right = Transforms()(torch.from_numpy(given).double())
        for found, right in zip(session.run(None, {"x": given}), all_right, strict=True):
            expected = right.numpy()
            assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()
