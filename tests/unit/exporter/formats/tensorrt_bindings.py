"""TensorRT's real Python bindings, of several versions, without TensorRT's libraries.

The wheels (1.2 MB each) are fetched once into stlab's cache. In place of the libraries lie empty
ones, so nothing of TensorRT can be done; but every name, type and signature is there to ask for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.triton.installation import cache_directory, install_once, install_packages
from tests.unit.exporter.sources.empty_library import write_empty_library

ROOT = Path(__file__).parents[4]
VERSIONS = ("10.9.0.34", "11.4.0.106")
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_DESCRIBE = """
import json
described = {"": dir(tensorrt)}
for name, kind in vars(tensorrt).items():
    if isinstance(kind, type):
        described[name] = {
            key: str(getattr(getattr(kind, key), "__doc__", None) or "") for key in dir(kind)
        }
print(json.dumps(described))
"""


@dataclass(frozen=True)
class Bindings:
    """One version of the bindings.

    Attributes:
        version: Of TensorRT.
        folder: Where the package ``tensorrt_bindings`` lies.
        libraries: Where the empty libraries lie.
    """

    version: str
    folder: Path
    libraries: Path

    @classmethod
    def install(cls, version: str, libraries: Path) -> Bindings:
        """Fetch the wheel, unless it is there, and write the libraries."""
        package = f"tensorrt-cu12-bindings=={version}"
        folder = install_once(
            cache_directory() / "tensorrt-bindings" / version,
            lambda partial, lock: install_packages(partial, [package], lock),
        )
        for library in LIBRARIES:
            soname = f"{library}.so.{version.split('.', maxsplit=1)[0]}"
            write_empty_library(libraries, soname, FUNCTIONS)
        return cls(version, folder, libraries)

    def run(self, code: str) -> str:
        """Run code where ``tensorrt`` are these bindings, and return what it prints."""
        begin = "import sys, tensorrt_bindings as tensorrt; sys.modules['tensorrt'] = tensorrt\n"
        done = subprocess.run(
            [sys.executable, "-P", "-c", begin + code],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(self.libraries),
                "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def described(self) -> dict[str, Any]:
        """Return the module's names under '', and every class's names with what is said of them."""
        return dict(json.loads(self.run(_DESCRIBE)))


@dataclass(frozen=True)
class Signature:
    """What one overload takes, itself left out."""

    names: tuple[str, ...]
    required: int

    def takes(self, positional: int, keywords: set[str]) -> bool:
        """Whether a call fits."""
        missing = set(self.names[positional : self.required]) - keywords
        return (
            positional <= len(self.names)
            and keywords <= set(self.names[positional:])
            and not missing
        )


def signatures(name: str, documentation: str) -> list[Signature]:
    """Return the overloads that pybind11 tells of in a function's documentation."""
    found = []
    for line in documentation.splitlines():
        match = re.match(rf"(?:\d+\. )?{re.escape(name)}\((self\b.*)\) -> ", line)
        if match:
            arguments = _split(match.group(1))[1:]
            required = sum("=" not in argument for argument in arguments)
            names = tuple(argument.partition(":")[0].strip() for argument in arguments)
            found.append(Signature(names, required))
    return found


def _split(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([<") - (character in ")]>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
