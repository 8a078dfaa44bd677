"""The model formats that each Triton release can load.

A model is exported for one *target* release. The table gives that release's ONNX Runtime, and so
the opset and IR version that it reads, before anything is converted or started.

Source: the release notes and the framework support matrix of the Triton containers. Within a run
of releases that share a minor version of ONNX Runtime, which patch came with which container is an
approximation; the patches of one minor version read the same opsets and IR versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from exporter.errors import UsageError

__all__ = ["DEFAULT_RELEASE", "RELEASES", "Release", "release"]


@dataclass(frozen=True, slots=True)
class Release:
    """One monthly container of Triton.

    Attributes:
        name: The container's name, ``YY.MM``.
        core: The version of the server inside it.
        onnxruntime: The version of ONNX Runtime behind its ``onnxruntime`` backend.
        max_opset: The newest ``ai.onnx`` opset that this ONNX Runtime reads.
        max_ir: The newest ONNX IR version that it reads.
        tensorrt: The version of TensorRT, as far as it is known.
        assumed: Whether the figures are those of the newest known release instead.
    """

    name: str
    core: str
    onnxruntime: str
    max_opset: int
    max_ir: int
    tensorrt: str | None
    assumed: bool = False

    @property
    def tensorrt_major(self) -> int:
        """The major version of TensorRT; the newest before 11 where none is known."""
        return int((self.tensorrt or "10").split(".")[0])

    def tensorrt_matches(self, found: str) -> bool:
        """Whether a plan that a TensorRT such as ``10.9.0.34`` builds runs on this release.

        A plan runs on the TensorRT that built it: major and minor version are compared, as far as
        the release's are known.
        """
        known = self.tensorrt.split(".")[:2] if self.tensorrt else []
        return found.split(".")[: len(known)] == known


# name, core, ONNX Runtime, opset, IR, TensorRT
_TABLE: tuple[tuple[str, str, str, int, int, str | None], ...] = (
    ("23.05", "2.34.0", "1.15.0", 19, 8, "8.6.1"),
    ("23.06", "2.35.0", "1.15.0", 19, 8, "8.6.1"),
    ("23.07", "2.36.0", "1.15.1", 19, 8, "8.6.1"),
    ("23.08", "2.37.0", "1.15.1", 19, 8, "8.6.1"),
    ("23.09", "2.38.0", "1.16.0", 19, 9, "8.6.1"),
    ("23.10", "2.39.0", "1.16.0", 19, 9, "8.6.1"),
    ("23.11", "2.40.0", "1.16.3", 19, 9, "8.6.1"),
    ("23.12", "2.41.0", "1.16.3", 19, 9, "8.6.1"),
    ("24.01", "2.42.0", "1.16.3", 19, 9, "8.6.1"),
    ("24.02", "2.43.0", "1.16.3", 19, 9, "8.6.3"),
    ("24.03", "2.44.0", "1.17.2", 20, 9, "8.6.3"),
    ("24.04", "2.45.0", "1.17.3", 20, 9, "8.6.3"),
    ("24.05", "2.46.0", "1.18.0", 21, 10, "10.0.1"),
    ("24.06", "2.47.0", "1.18.0", 21, 10, "10.1"),
    ("24.07", "2.48.0", "1.18.1", 21, 10, "10.2"),
    ("24.08", "2.49.0", "1.18.1", 21, 10, "10.3"),
    ("24.09", "2.50.0", "1.19.2", 21, 10, "10.4"),
    ("24.10", "2.51.0", "1.19.2", 21, 10, "10.5"),
    ("24.11", "2.52.0", "1.19.2", 21, 10, "10.6.0"),
    ("24.12", "2.53.0", "1.20.1", 21, 10, "10.7.0"),
    ("25.01", "2.54.0", "1.20.1", 21, 10, "10.7.0"),
    ("25.02", "2.55.0", "1.20.1", 21, 10, "10.8"),
    ("25.03", "2.56.0", "1.21.0", 22, 10, "10.9.0"),
    ("25.04", "2.57.0", "1.21.0", 22, 10, "10.9.0"),
    ("25.05", "2.58.0", "1.22.0", 22, 10, "10.10"),
    ("25.06", "2.59.0", "1.22.0", 22, 10, "10.11"),
    ("25.07", "2.59.1", "1.22.0", 22, 10, None),
    ("25.08", "2.60.0", "1.23.0", 23, 11, "10.13"),
    ("25.09", "2.61.0", "1.23.0", 23, 11, None),
    ("25.10", "2.62.0", "1.23.0", 23, 11, "10.13.3"),
    ("25.11", "2.63.0", "1.23.2", 23, 11, None),
    ("25.12", "2.64.0", "1.23.2", 23, 11, "10.14.1"),
    ("26.01", "2.65.0", "1.23.2", 23, 11, None),
    ("26.02", "2.66.0", "1.24.1", 25, 13, None),
    ("26.03", "2.67.0", "1.24.2", 25, 13, None),
    ("26.04", "2.68.0", "1.24.3", 25, 13, None),
    ("26.05", "2.69.0", "1.24.4", 25, 13, None),
    ("26.06", "2.70.0", "1.24.4", 25, 13, "11"),
    ("26.07", "2.71.0", "1.27.0", 26, 13, "11"),
)

RELEASES: dict[str, Release] = {row[0]: Release(*row) for row in _TABLE}
"""Every known release by name, oldest first."""

DEFAULT_RELEASE = "26.07"
"""The release that is targeted where none is named."""


def release(name: str) -> Release:
    """Return what is known of a release such as ``26.07``, of ``tritonserver:26.07-py3``.

    For one newer than the table these are the figures of the newest one, marked as assumed.

    Raises:
        UsageError: The name is malformed, or older than the table.
    """
    oldest, newest = min(RELEASES), max(RELEASES)
    known = f"known releases: {oldest} to {newest}, the default is {DEFAULT_RELEASE}"
    if not re.fullmatch(r"[0-9]{2}\.(0[1-9]|1[0-2])", name):
        raise UsageError(f"{name!r} is not a Triton release, which looks like YY.MM.", hint=known)
    if name < oldest:
        raise UsageError(f"Triton release {name} is too old to export for.", hint=known)
    if name > newest:
        return replace(RELEASES[newest], name=name, assumed=True)
    return RELEASES[name]
