"""Operators that a pt2 archive may call: those that compute and do nothing else."""

from __future__ import annotations

import math
import operator
import re
from functools import cache
from typing import Any

import torch
from torch._export.serde.serialize import _SYM_OPS

__all__ = ["is_arithmetic"]

_OPERATOR = re.compile(
    r"torch\.ops\.(?P<space>aten|prims|quantized|quantized_decomposed)\."
    r"(?P<name>[A-Za-z0-9_]{1,128})\.(?P<overload>[A-Za-z0-9_]{1,128})",
    re.ASCII,
)
# Those whose bodies are graphs of the same archive, checked as it is.
_HIGHER_ORDER = frozenset(
    f"torch.ops.higher_order.{name}"
    for name in (
        *("cond", "map", "map_impl", "while_loop", "scan", "associative_scan", "wrap"),
        *("wrap_with_set_grad_enabled", "wrap_with_autocast", "strict_mode"),
    )
)
# Tensor operators that read and write files, swap or reveal memory under a tensor, print, or leave
# out the check of an index.
_NOT_ARITHMETIC = frozenset(
    {
        *("from_file", "save", "set", "set_", "set_data", "_print", "record_stream"),
        *("resize", "resize_", "resize_as", "resize_as_", "_resize_output", "_resize_output_"),
        *("_index_put_impl", "_index_put_impl_", "_sparse_coo_tensor_unsafe"),
        *("_sparse_compressed_tensor_unsafe", "_sparse_csr_tensor_unsafe"),
        *("_sparse_csc_tensor_unsafe", "_sparse_bsr_tensor_unsafe", "_sparse_bsc_tensor_unsafe"),
    }
)


def is_arithmetic(target: str) -> bool:
    """Whether a node's target does nothing but compute."""
    if target in _HIGHER_ORDER or target in _scalar_functions():
        return True
    found = _OPERATOR.fullmatch(target)
    if found is None or found["name"] in _NOT_ARITHMETIC:
        return False
    # Others of these namespaces are TorchScript's own, made for more than computing.
    overload = "" if found["overload"] == "default" else f".{found['overload']}"
    return f"{found['space']}::{found['name']}{overload}" in _dispatched()


@cache
def _scalar_functions() -> frozenset[str]:
    """The functions of numbers that torch itself writes: no other of their modules is known."""
    modules = {"_operator": operator, "math": math, "torch": torch}
    functions: dict[str, Any] = {function.__name__: function for function in _SYM_OPS}
    return frozenset(
        f"{prefix}.{name}"
        for prefix, module in modules.items()
        for name, function in functions.items()
        if getattr(module, name, None) is function
    )


@cache
def _dispatched() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())  # noqa: SLF001 - nothing public lists them
