"""Errors of ONNX Runtime in the words of NVIDIA's backend."""

from __future__ import annotations

import re

__all__ = ["runtime_message"]

_ONNXRUNTIME = re.compile(r"^\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)$", re.DOTALL)


def runtime_message(error: Exception) -> str:
    """Return the message of an error of ONNX Runtime as NVIDIA's backend words it."""
    match = _ONNXRUNTIME.match(str(error))
    if match is None:
        return f"onnx runtime error 1: {error}"
    return f"onnx runtime error {match.group(1)}: {match.group(2)}"
