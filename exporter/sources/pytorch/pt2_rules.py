"""What the texts in the description of a pt2 program may be, field by field.

Torch prints them into source, imports them or looks them up, so each is of a closed alphabet. A
text that ends up between quotes holds no quote and no backslash; a name is an identifier.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable
from typing import Any

from exporter.sources.pytorch.pt2_expressions import check_guard, check_size
from exporter.sources.pytorch.pt2_operators import is_arithmetic

__all__ = ["INTEGERS", "RULES", "is_dict_key", "is_word"]

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
_WORD = re.compile(r"[A-Za-z0-9_.:,+ \-]{0,256}")
_MESSAGE = re.compile(r"[ !#-\[\]-~]{0,4096}")  # printable, without a double quote or a backslash


def _matches(*patterns: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: any(pattern.fullmatch(text) for pattern in patterns)


def _is_name(text: str) -> bool:
    return (
        _IDENTIFIER.fullmatch(text) is not None
        and not keyword.iskeyword(text)
        and text not in _TAKEN
    )


def _is_path(text: str) -> bool:
    """Whether a text is the dotted name of a parameter, a buffer or a module."""
    return all(_PART.fullmatch(part) for part in text.split("."))


def _never(_: str) -> bool:
    return False


def _holds(check: Callable[[str], None]) -> Callable[[str], bool]:
    def rule(text: str) -> bool:
        try:
            check(text)
        except (ValueError, TypeError, RecursionError):
            return False
        return True

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
    if is_call and spec["type"] == "builtins.tuple" and len(spec["children_spec"]) == 2:
        named = spec["children_spec"][1]
        keys = json.loads(named["context"]) if named["type"] == "builtins.dict" else ()
        if not all(isinstance(key, str) and _is_name(key) for key in keys):
            raise ValueError


def _check_container(spec: Any) -> None:
    if set(spec) != {"type", "context", "children_spec"}:
        raise ValueError
    kind, context, children = spec["type"], spec["context"], spec["children_spec"]
    if kind is None:
        right = context is None and not children
    elif kind in {"builtins.tuple", "builtins.list"}:
        right = context == "null"
    elif kind in {"builtins.dict", "collections.OrderedDict"}:
        keys = json.loads(context)
        right = isinstance(keys, list) and all(map(is_dict_key, keys))
    else:
        right = False
    if not right or not isinstance(children, list):
        raise ValueError
    for child in children:
        _check_container(child)


def is_dict_key(key: object) -> bool:
    """Whether a key of a dict of tensors is a plain word or a number."""
    if isinstance(key, str):
        return _DICT_KEY.fullmatch(key) is not None
    return type(key) is int and key in INTEGERS


def is_word(text: str) -> bool:
    """Whether a text is safe between quotes of torch's source."""
    return _WORD.fullmatch(text) is not None


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

RULES: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(_NAMES, _is_name),
    **dict.fromkeys(_PATHS, _is_path),
    **dict.fromkeys(_REFUSED, _never),
    "Device.type": _matches(re.compile(r"[a-z]{1,16}")),
    "SymExpr.expr_str": _holds(check_size),
    "Argument.as_string": _matches(_MESSAGE),
    "Argument.as_strings": _matches(_MESSAGE),
    # An operator's own, such as "self"; a positional argument has none.
    "NamedArgument.name": _matches(_IDENTIFIER, re.compile("")),
    "Node.target": is_arithmetic,
    "ConstantValue.as_string": is_word,
    "ModuleCallSignature.in_spec": _holds(lambda text: _check_treespec(text, is_call=True)),
    "ModuleCallSignature.out_spec": _holds(_check_treespec),
    "ModuleCallEntry.fqn": lambda text: not text or _is_path(text),
    "ExportedProgram.opset_version": _matches(re.compile(r"[a-z_]{1,64}")),
    "ExportedProgram.range_constraints": _holds(check_size),
    "ExportedProgram.verifiers": _matches(re.compile("|ATEN|TRAINING")),
    "ExportedProgram.torch_version": _matches(re.compile(r"[0-9A-Za-z.+<=\-]{0,64}")),
    "ExportedProgram.guards_code": _holds(check_guard),
    "PayloadMeta.path_name": _matches(re.compile(r"(?:weight|tensor)_\d{1,9}")),
}
"""What a text of each field may be, and what a key of each mapping may be."""
