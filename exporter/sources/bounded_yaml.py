"""Parses untrusted YAML within bounds on its size, depth and the nodes that aliases multiply."""

from __future__ import annotations

from typing import Any

import yaml

from exporter.bounded_text import MOST_DEPTH, UNFIT, check_depth
from exporter.errors import first_line

__all__ = ["MOST_BYTES", "parse_yaml"]

MOST_BYTES = 2 * 1024 * 1024
"""The largest text that is parsed, which takes seconds in Python."""

_MOST_NODES = 200_000


def parse_yaml(content: bytes) -> Any:
    """Parse YAML into plain values.

    Raises:
        ValueError: It is damaged, too large, too deep, or too large with its aliases expanded.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    try:
        parsed = yaml.load(content.decode(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, *UNFIT) as error:
        raise ValueError(first_line(error)) from error
    check_depth(parsed)
    return parsed


class _Loader(yaml.SafeLoader):
    """Counts nodes as aliases multiply them, and how deep they are."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._weights: dict[int, int] = {}
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, or return the one that an alias refers to."""
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._count
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise yaml.YAMLError("it is nested too deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias:
            if id(node) not in self._weights:
                raise yaml.YAMLError("an alias holds itself")
            self._count += self._weights[id(node)]
        else:
            self._count += 1
            self._weights[id(node)] = self._count - before
        if self._count > _MOST_NODES:
            raise yaml.YAMLError(f"it has more than {_MOST_NODES} values")
        return node
