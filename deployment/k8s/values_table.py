#!/usr/bin/env python3
"""Write the table of values into the chart's README.md, from values.yaml and its comments.

    values_table.py [--check]

A comment ``# -- …`` stands above what it describes.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = Path(__file__).parent / "chart"
BEGIN, END = "<!-- values -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?P<value>.*)")
_SHORT = 60


@dataclass(frozen=True, slots=True)
class Value:
    """A value that can be set.

    Attributes:
        path: Its keys, with points.
        default: What it is by default, as YAML on one line.
        text: What it is.
    """

    path: str
    default: str
    text: str


def values(text: str) -> Iterator[Value]:
    """Read what values.yaml describes.

    Raises:
        ValueError: A value is not described.
    """
    tree = yaml.safe_load(text)
    path: list[str] = []
    comment, inside = "", -1
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = stripped.removeprefix("# -- ")
            continue
        found = _KEY.fullmatch(line)
        if not found or 0 <= inside < len(found["indent"]):
            continue
        inside = -1
        path = [*path[: len(found["indent"]) // 2], found["key"]]
        if comment:
            default = tree
            for key in path:
                default = default[key]
            yield Value(".".join(path), _on_one_line(default), comment)
            # What is below is part of it.
            comment, inside = "", len(found["indent"])
        elif found["value"].strip():
            raise ValueError(f"{'.'.join(path)} has no comment that starts with `# -- `")


def table(text: str) -> str:
    """Return the table in Markdown."""
    rows = [
        f"| `{value.path}` | {f'`{value.default}`' if value.default else ''} | {value.text} |"
        for value in values(text)
    ]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows, ""])


def with_table(readme: str, text: str) -> str:
    """Return the README with the table of these values."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(text)}{END}{after}"


def _on_one_line(default: object) -> str:
    if default == "":
        return ""
    shown = yaml.safe_dump(default, default_flow_style=True, width=10**6, sort_keys=False)
    shown = shown.removesuffix("\n").removesuffix("\n...")
    return shown if len(shown) <= _SHORT else "see values.yaml"


def main(arguments: list[str]) -> int:
    """Write the table; with ``--check`` 1 where it is not that of values.yaml."""
    path = CHART / "README.md"
    old = path.read_text()
    new = with_table(old, (CHART / "values.yaml").read_text())
    if "--check" in arguments:
        return int(new != old)
    path.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
