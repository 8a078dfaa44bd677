#!/usr/bin/env python3
"""Write the table of values into the chart's README.md, from values.yaml and its comments.

    values_table.py [--check]

A comment ``# -- …`` stands above what it describes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "chart"
BEGIN, END = "<!-- values -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?P<value>.*)")
_SHORT = 60


def values(text: str) -> Iterator[tuple[str, str, str]]:
    """Read what values.yaml describes: a value's keys, its default in YAML, and what it is.

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
            yield ".".join(path), _on_one_line(default), comment
            # What is below is part of it.
            comment, inside = "", len(found["indent"])
        elif found["value"].strip():
            raise ValueError(f"{'.'.join(path)} has no comment that starts with `# -- `")


def table(text: str) -> str:
    """Return the table in Markdown."""
    rows = [
        f"| `{path}` | {f'`{default}`' if default else ''} | {about} |"
        for path, default, about in values(text)
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
