"""How an eager module is asked, what of it varies, and what it remembers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.errors import ValidationFailed
from exporter.sources.pytorch import forms
from exporter.sources.pytorch.calling import positional
from exporter.sources.pytorch.memory import refuse_memory
from exporter.sources.pytorch.probing import probe

X = torch.arange(12.0).reshape(4, 3)


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
    called = positional(module, names, [X, X + 1])
    assert called.way == way
    (answer,) = called(X, X + 1)
    expected = X + 1 + 2 * X if names == ["b", "a"] else X + 2 * (X + 1)
    assert torch.equal(answer, expected)


def test_a_module_that_takes_them_in_no_way() -> None:
    with pytest.raises(RuntimeError, match="size"):
        positional(Sum(), ["a", "b"], [X, torch.ones(5, 7)])


def ask(module: nn.Module) -> Any:
    return lambda tensors: list(module(*tensors))


class Windows(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean(1), torch.cat([x, y], dim=1)


def test_sizes_that_vary_are_found_by_asking() -> None:
    inputs, outputs, _ = probe(ask(Windows()), [X, X[:, :2]], [[0, 1], [0]])
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

    inputs, outputs, _ = probe(only_four, [X], [[0]])
    assert (inputs, outputs) == ([(4, 3)], [(2, 6)])


def test_an_example_of_one_row_is_grown_before_it_is_traced() -> None:
    *_, grown = probe(ask(Windows()), [X[:1], X[:1]], [[0], [0]])
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
    with pytest.raises(ValidationFailed, match=f"'{name}'"):
        refuse_memory(module, lambda: module(X))


def test_a_cache_is_no_memory() -> None:
    module = Remembers("cache")
    refuse_memory(module, lambda: module(X))


def test_the_error_function_in_float64() -> None:
    x = torch.cat([torch.linspace(-9, 9, 4001), torch.tensor([0.46875, -0.46875, 1e-300, 0.0])])
    x = x.double()
    expected = np.array([math.erf(value) for value in x.tolist()])
    np.testing.assert_allclose(forms._erf(x).numpy(), expected, rtol=1e-13, atol=3e-17)
    assert forms._erf(torch.tensor([math.inf, -math.inf]).double()).tolist() == [1.0, -1.0]
    gelu = nn.functional.gelu(x)
    np.testing.assert_allclose(forms._gelu(x).numpy(), gelu.numpy(), rtol=1e-12, atol=1e-15)


def test_products_of_complex_tensors_by_real_ones() -> None:
    a = torch.randn(2, 3, 4, dtype=torch.complex64)
    b = torch.randn(4, 5, dtype=torch.complex64)
    for left, right in ((a, b), (a, b.real), (a.real, b)):
        expected = torch.matmul(left.to(a.dtype), right.to(a.dtype))
        torch.testing.assert_close(forms._matmul(left, right), expected)
        equation = "bij,jk->bik"
        torch.testing.assert_close(forms._einsum(equation, [left, right]), expected)
    assert forms._matmul(a.real, b.real) is NotImplemented
