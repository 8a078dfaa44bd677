"""What the texts in the description of a pt2 program may be, field by field.

Torch prints them into source, imports them or looks them up, so each is of a closed alphabet. A
text that ends up between quotes holds no quote and no backslash; a name is an identifier.
"""

from __future__ import annotations

import json
import keyword
import math
import operator
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch._export.serde.serialize import _SYM_OPS

from exporter.sources.pytorch.pt2_expressions import check_guard, check_size

__all__ = ["INTEGERS", "RULES", "is_arithmetic", "is_dict_key", "is_word"]

INTEGERS = range(-(2**63), 2**64)
"""The integers that a tensor or a size may hold."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,1023}")
# Names that torch's generated source uses for its own ends.
_TAKEN = frozenset(
    {"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "args_list"}
)
# A part of a parameter's name is a key of a ModuleDict at times; torch quotes it in its source.
_PART = re.compile(r"(?!__)[A-Za-z0-9_@:/+ \-]{1,1024}")
_DICT_KEY = re.compile(r"[A-Za-z0-9_.:/ \-]{1,256}")
_MESSAGE = re.compile(r"[ !#-\[\]-~]{0,4096}")  # printable, without a double quote or a backslash

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
    return frozenset(
        f"{name}.{function.__name__}"
        for name, module in modules.items()
        for function in _SYM_OPS
        if getattr(module, function.__name__, None) == function
    )


@cache
def _dispatched() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())  # noqa: SLF001 - nothing public lists them


def _is_name(text: str) -> bool:
    return (
        _IDENTIFIER.fullmatch(text) is not None
        and not keyword.iskeyword(text)
        and text not in _TAKEN
    )


def _is_path(text: str) -> bool:
    """Whether a text is the dotted name of a parameter, a buffer or a module."""
    return all(_PART.fullmatch(part) for part in text.split("."))


def _holds(check: Callable[[str], None]) -> Callable[[str], bool]:
    def rule(text: str) -> bool:
        with suppress(ValueError, TypeError, RecursionError):
            check(text)
            return True
        return False

    return rule


def _check_treespec(text: str, *, is_call: bool = False) -> None:
    """Check a tree of containers: tuples, lists and dicts alone, whose keys are plain.

    Torch imports the modules that enumerations and a defaultdict name in here, and prints the keys
    of the call's keywords as variables.
    """
    protocol, spec = json.loads(text)
    if protocol != 1:
        raise ValueError
    _check_container(spec)
    match spec["children_spec"]:
        case [_, {"type": "builtins.dict", "context": keys}] if (
            is_call and spec["type"] == "builtins.tuple"
        ):
            if not all(isinstance(key, str) and _is_name(key) for key in json.loads(keys)):
                raise ValueError


def _check_container(spec: Any) -> None:
    if set(spec) != {"type", "context", "children_spec"}:
        raise ValueError
    match spec["type"], spec["context"], spec["children_spec"]:
        case (None, None, []) | ("builtins.tuple" | "builtins.list", "null", [*_]):
            keys = []
        case "builtins.dict" | "collections.OrderedDict", context, [*_]:
            keys = json.loads(context)
        case _:
            raise ValueError
    if not (isinstance(keys, list) and all(map(is_dict_key, keys))):
        raise ValueError
    for child in spec["children_spec"]:
        _check_container(child)


def is_dict_key(key: object) -> bool:
    """Whether a key of a dict of tensors is a plain word or a number."""
    if isinstance(key, str):
        return _DICT_KEY.fullmatch(key) is not None
    return type(key) is int and key in INTEGERS


is_word: Callable[[str], object] = re.compile(r"[A-Za-z0-9_.:,+ \-]{0,256}").fullmatch
"""Whether a text is safe between quotes of torch's source."""


_NAMES = (
    *("SymIntArgument.as_name", "SymFloatArgument.as_name", "SymBoolArgument.as_name"),
    *("TensorArgument.name", "TokenArgument.name", "GraphArgument.name", "Node.name"),
    *("InputToConstantInputSpec.name", "GradientToUserInputSpec.user_input_name"),
    *("UserInputMutationSpec.user_input_name", "ModuleCallSignature.forward_arg_names"),
    *("Graph.tensor_values", "Graph.sym_int_values", "Graph.sym_bool_values"),
    *("Graph.sym_float_values", "Argument.as_string_to_argument"),
)
_PATHS = (
    *("InputToParameterSpec.parameter_name", "InputToBufferSpec.buffer_name"),
    *("InputToTensorConstantSpec.tensor_constant_name", "BufferMutationSpec.buffer_name"),
    *("ParameterMutationSpec.parameter_name", "GradientToParameterSpec.parameter_name"),
    "PayloadConfig.config",
)
# Objects of the archive's own classes, and functions as values.
_REFUSED = (
    *("CustomObjArgument.name", "CustomObjArgument.class_fqn", "Argument.as_operator"),
    *("InputToCustomObjSpec.custom_obj_name", "Graph.custom_obj_values"),
)

RULES: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(_NAMES, _is_name),
    **dict.fromkeys(_PATHS, _is_path),
    **dict.fromkeys(_REFUSED, lambda _: False),
    "Device.type": re.compile(r"[a-z]{1,16}").fullmatch,
    "SymExpr.expr_str": _holds(check_size),
    "Argument.as_string": _MESSAGE.fullmatch,
    "Argument.as_strings": _MESSAGE.fullmatch,
    # An operator's own, such as "self"; a positional argument has none.
    "NamedArgument.name": re.compile(f"|{_IDENTIFIER.pattern}").fullmatch,
    "Node.target": is_arithmetic,
    "ConstantValue.as_string": is_word,
    "ModuleCallSignature.in_spec": _holds(lambda text: _check_treespec(text, is_call=True)),
    "ModuleCallSignature.out_spec": _holds(_check_treespec),
    "ModuleCallEntry.fqn": lambda text: not text or _is_path(text),
    "ExportedProgram.opset_version": re.compile(r"[a-z_]{1,64}").fullmatch,
    "ExportedProgram.range_constraints": _holds(check_size),
    "ExportedProgram.verifiers": re.compile("|ATEN|TRAINING").fullmatch,
    "ExportedProgram.torch_version": re.compile(r"[0-9A-Za-z.+<=\-]{0,64}").fullmatch,
    "ExportedProgram.guards_code": _holds(check_guard),
    "PayloadMeta.path_name": re.compile(r"(?:weight|tensor)_\d{1,9}").fullmatch,
}
"""What a text of each field may be, and what a key of each mapping may be."""
