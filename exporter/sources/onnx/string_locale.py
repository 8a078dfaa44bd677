"""Replaces the locale of operators that change the case of texts by a portable one.

ONNX's StringNormalizer uses ``en_US.UTF-8`` by default. Containers, including Triton's own, lack
that locale, and ONNX Runtime then refuses the model. ``C.UTF-8`` exists wherever glibc does, and
has the same Unicode table of upper and lower case.

Source: the glibc locales ``C`` and ``en_US``, which both copy ``i18n_ctype``.
"""

from __future__ import annotations

import onnx
from onnx import helper

from exporter.sources.onnx.graphs import all_nodes

__all__ = ["PORTABLE_LOCALE", "use_portable_locale", "uses_english_locale"]

PORTABLE_LOCALE = "C.UTF-8"
_ATTRIBUTE = "locale"


def uses_english_locale(proto: onnx.ModelProto) -> bool:
    """Whether a file uses a locale of English."""
    return bool(_nodes(proto))


def use_portable_locale(proto: onnx.ModelProto) -> None:
    """Replace locales of English by a portable one with the same rules."""
    for node in _nodes(proto):
        kept = [attribute for attribute in node.attribute if attribute.name != _ATTRIBUTE]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(_ATTRIBUTE, PORTABLE_LOCALE)])


def _nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [
        node
        for node in all_nodes(proto)
        if node.op_type == "StringNormalizer" and not node.domain and _is_english(node)
    ]


def _is_english(node: onnx.NodeProto) -> bool:
    named = [a.s for a in node.attribute if a.name == _ATTRIBUTE]
    return not named or named[0].startswith((b"en_", b"en-"))
