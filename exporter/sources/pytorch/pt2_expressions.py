"""Arithmetic in a pt2 archive: symbolic sizes, and the guards of its inputs.

Torch hands a symbolic size to sympy, which evaluates it as Python, and prints guards into the
source of a function. Here both are parsed and compared with what torch itself writes; nothing is
evaluated. Powers and numbers are bounded, since ``9**9**9**9`` never ends.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable

__all__ = ["check_guard", "check_size"]

# The names that torch gives to variable sizes.
_SYMBOL = re.compile(r"(?:s|u|z|f|uf|zf|zuf)\d{1,6}")

_MAX_LENGTH = 20_000
_MAX_NODES = 2000
_MAX_COMPARED = 48  # sympy compares the operands of Max and Min each with each, for seconds
_MAX_BITS = 4096
_MAX_EXPONENT = 32
_SIZE_BITS = 64

_CHARACTERS = re.compile(r"[A-Za-z0-9_ +\-*/%(),.<>=!&|~\[\]':]*")
_NUMBER = re.compile(r"-?\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,3})?|-?\.\d{1,40}")
_KEY = re.compile(r"[A-Za-z0-9_.:/ \-]{1,256}")

_CONSTANTS = frozenset({"oo", "int_oo", "true", "false", "inf"})
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow", "LShift"})
_FUNCTIONS = frozenset(
    {
        *("Add", "Mul", "Mod", "PythonMod", "CleanDiv", "FloorDiv", "CeilDiv", "IntTrueDiv"),
        *("FloatTrueDiv", "ModularIndexing", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt"),
        *("TruncToFloat", "ToFloat", "RoundDecimal", "Where", "Max", "Min", "Abs", "Identity"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictGreaterThan"),
        *("StrictLessThan", "GreaterThan", "LessThan", "And", "Or", "Not", "RShift"),
        *("BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or"),
    }
)
_OPAQUE_FUNCTION = re.compile(r"OpaqueUnaryFn_[a-z0-9]+")
_ASSUMPTIONS = frozenset(
    {
        *("positive", "nonnegative", "negative", "nonpositive", "nonzero", "zero", "integer"),
        *("real", "finite", "commutative"),
    }
)
_GUARD_FUNCTIONS = frozenset(
    {
        *("max", "min", "abs", "int", "float", "round", "math.floor", "math.ceil", "math.trunc"),
        *("math.sqrt", "math.isnan", "torch.sym_float", "torch.sym_int", "torch.sym_max"),
        *("torch.sym_min", "torch.sym_not", "torch.sym_ite", "torch._sym_sqrt"),
    }
)


def check_size(text: str) -> None:
    """Check a symbolic size.

    Raises:
        ValueError: It is not plain arithmetic, or its numbers are out of bounds.
    """
    _bits(_parsed(text), _size_call)


def check_guard(text: str) -> None:
    """Check one guard: a comparison of sizes and numbers among the inputs ``L['name']``.

    Raises:
        ValueError: It is anything else, or its numbers are out of bounds.
    """
    _bits(_parsed(text), _guard_call)


def _parsed(text: str) -> ast.expr:
    if len(text) > _MAX_LENGTH or not _CHARACTERS.fullmatch(text):
        raise ValueError
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError from error
    nodes = list(ast.walk(tree))
    compared = sum(
        len(node.args)
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"Max", "Min"}
    )
    if len(nodes) > _MAX_NODES or compared > _MAX_COMPARED:
        raise ValueError
    return tree.body


def _bits(node: ast.expr, call: Callable[[ast.expr], float]) -> float:
    """Return how many bits a value can have at most, where it is allowed at all."""
    match node:
        case ast.Constant(value):
            bits = _constant_bits(value)
        case ast.Name(name) if name in _CONSTANTS or _SYMBOL.fullmatch(name):
            bits = _SIZE_BITS
        case ast.BinOp(left, ast.Pow() | ast.LShift(), right):
            bits = _power_bits(left, right, call)
        case ast.BinOp(left, ast.Mult() | ast.Div(), right):
            bits = _bits(left, call) + _bits(right, call)
        case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.Compare() | ast.IfExp():
            operands = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
            bits = max(_bits(operand, call) for operand in operands) + 1
        case ast.Call() | ast.Subscript() | ast.Attribute():
            bits = call(node)
        case _:
            raise ValueError
    if bits > _MAX_BITS:
        raise ValueError
    return bits


def _power_bits(base: ast.expr, exponent: ast.expr, call: Callable[[ast.expr], float]) -> float:
    """An exponent is a small number: one that varies would be known too late to be refused."""
    value = abs(_literal(exponent))
    if value > _MAX_EXPONENT:
        raise ValueError
    # A shift multiplies by two to the exponent, which is less than this.
    return (_bits(base, call) + 1) * max(value, 1.0)


def _literal(node: ast.expr) -> float:
    match node:
        case ast.Constant(int() | float() as value):
            _constant_bits(value)
            return float(value)
        case ast.UnaryOp(ast.USub(), operand):
            return -_literal(operand)
        case ast.Call(ast.Name("Integer"), [number], []):
            return _literal(number)
        case ast.Call(ast.Name("Rational"), [above, below], []) if _literal(below):
            return _literal(above) / _literal(below)
    raise ValueError


def _constant_bits(value: object) -> float:
    if isinstance(value, int) and value.bit_length() <= _SIZE_BITS:
        return value.bit_length()
    if isinstance(value, float) and math.isfinite(value):
        return _SIZE_BITS
    raise ValueError


def _size_call(node: ast.expr) -> float:
    match node:
        case ast.Call(ast.Name("Symbol"), [ast.Constant(str() as name)], options) if (
            _SYMBOL.fullmatch(name) and all(map(_is_assumption, options))
        ):
            return _SIZE_BITS
        case ast.Call(ast.Name("Float"), [ast.Constant(str() as number)], options) if (
            _NUMBER.fullmatch(number) and all(map(_is_precision, options))
        ):
            return _SIZE_BITS
        case ast.Call(ast.Name("Integer" | "Rational")):
            _literal(node)
        case ast.Call(ast.Name(function), [base, exponent], []) if function in _POWERS:
            return _power_bits(base, exponent, _size_call)
        case ast.Call(ast.Name(function), [_, *_] as values, []) if (
            function in _FUNCTIONS or _OPAQUE_FUNCTION.fullmatch(function)
        ):
            bits = [_bits(value, _size_call) for value in values]
            return sum(bits) if function == "Mul" else max(bits) + len(bits)
        case _:
            raise ValueError
    return _SIZE_BITS


def _is_assumption(option: ast.keyword) -> bool:
    match option:
        case ast.keyword(name, ast.Constant(bool())):
            return name in _ASSUMPTIONS
    return False


def _is_precision(option: ast.keyword) -> bool:
    return option.arg in {"precision", "dps"} and 0 < _literal(option.value) < 128


def _guard_call(node: ast.expr) -> float:
    match node:
        case ast.Call(ast.Attribute(value, "size" | "stride" | "storage_offset"), [], []):
            _check_source(value)
        case ast.Subscript(ast.Call() as call, ast.Constant(int() as axis)) if 0 <= axis < 64:
            _guard_call(call)
        case ast.Subscript():
            _check_source(node)
        case ast.Attribute(ast.Name("math"), "inf" | "nan"):
            return 1
        case ast.Call(function, [_, *_] as values, []) if ast.unparse(function) in _GUARD_FUNCTIONS:
            return max(_bits(value, _guard_call) for value in values)
        case _:
            raise ValueError
    return _SIZE_BITS


def _check_source(node: ast.expr) -> None:
    """Check the place of an input, such as ``L['batch'][0]``."""
    match node:
        case ast.Subscript(ast.Name("L"), ast.Constant(str() as key)) if _KEY.fullmatch(key):
            return
        case ast.Subscript(outer, ast.Constant(str() | int() as key)) if _KEY.fullmatch(str(key)):
            _check_source(outer)
        case _:
            raise ValueError
