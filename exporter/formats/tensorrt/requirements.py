"""Checks whether a plan can be built here: TensorRT, its libraries and version, a GPU."""

from __future__ import annotations

from importlib.util import find_spec

from exporter.errors import UsageError, ValidationFailedError, first_line
from exporter.system.cuda import CudaError, gpus
from exporter.triton.releases import Release

__all__ = ["check_available", "install_command", "is_typed"]

_OLDEST = 10
# From this one on every tensor has the type that the model gives it.
_TYPED = 11


def check_available(release: Release, *, provable: bool = True) -> str:
    """Check that a plan for a release can be built here, and return the version of TensorRT.

    It is *provable* where a server is available to prove it on.

    Raises:
        UsageError: Something is missing; all of it is named.
        ValidationFailedError: The release has another TensorRT.
    """
    if release.tensorrt_major < _OLDEST:
        raise ValidationFailedError(
            f"plans are built with TensorRT {_OLDEST} or newer, which know INT64; "
            f"Triton {release.name} has TensorRT {release.tensorrt}",
            hint="Use --format onnx, or a newer --triton-release.",
            kind="target",
        )
    version, missing = _tensorrt()
    try:
        missing += [] if gpus() else ["a GPU: the driver finds none"]
    except CudaError as error:
        missing.append(f"a GPU: {error}")
    if not provable:
        missing.append(
            "a server to prove it on, with production's GPU (--prove-on HOST:PORT, or a "
            "tritonserver on PATH; the embedded one has no GPU)"
        )
    if missing:
        raise UsageError(
            f"--format tensorrt needs what is missing here: {'; '.join(missing)}",
            hint=f"On a machine with production's GPU: {install_command(release)}. Or use --format "
            "onnx --accelerator tensorrt, which lets the server build the engine.",
        )
    if not release.tensorrt_matches(version):
        raise ValidationFailedError(
            f"TensorRT {version} is installed here and Triton {release.name} has "
            f"{release.tensorrt}: a plan runs on the TensorRT that built it, and on no other",
            hint=f"{install_command(release)}, or run the export in the image of that release; or "
            "target the release that has this TensorRT with --triton-release.",
            kind="target",
        )
    return version


def is_typed(version: str) -> bool:
    """Whether a TensorRT takes precisions from the model alone, without flags."""
    return int(version.split(".", maxsplit=1)[0]) >= _TYPED


def install_command(release: Release) -> str:
    """Return the command that installs a release's TensorRT."""
    known = ".".join((release.tensorrt or "10").split(".")[:2])
    return f"pip install 'tensorrt-cu12=={known}.*'"


def _tensorrt() -> tuple[str, list[str]]:
    """Return the version of TensorRT, and what is missing of it."""
    if find_spec("tensorrt") is None:
        return "", ["the Python package tensorrt"]
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        return "", [f"TensorRT's libraries, such as libnvinfer ({first_line(error)})"]
    return str(tensorrt.__version__), []
