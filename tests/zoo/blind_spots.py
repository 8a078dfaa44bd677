"""Models whose logged example does not show something on which converters go wrong.

Each is logged as a careless but honest user would log it, and gets exactly the rows that its
example hides. It is right to serve such a model with the registered model's answers, and right to
refuse it; only wrong answers are wrong. So ``refused`` is a word of the reason for which it may be
refused here, and not what must happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from tests.zoo import blind_spots_onnx, blind_spots_tabular, blind_spots_text, blind_spots_torch

from .catalogue import Model

__all__ = ["BLIND_SPOTS", "BLIND_SPOT_KINDS"]

BLIND_SPOT_KINDS: Mapping[str, Sequence[Model]] = {
    "of texts": blind_spots_text.TEXTS,
    "of tables": blind_spots_tabular.TABLES,
    "torch modules": blind_spots_torch.MODULES,
    "ONNX files": blind_spots_onnx.FILES,
}

BLIND_SPOTS: tuple[Model, ...] = tuple(chain.from_iterable(BLIND_SPOT_KINDS.values()))
