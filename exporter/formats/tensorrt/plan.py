"""Builds a plan from an ONNX file with TensorRT's own builder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorrt as trt

from exporter.errors import UnavailableError, ValidationFailedError
from exporter.formats.tensorrt.requirements import is_typed
from exporter.formats.tensorrt_profiles import Profile
from exporter.system.cuda import Gpu
from exporter.triton.installation import cache_directory, make_folder

__all__ = ["Log", "build_plan", "failed"]

# The most memory for the fastest kernels, besides weights and activations.
WORKSPACE_BYTES = 4 << 30
_TYPED = is_typed(trt.__version__)
_HINT = "Use --format onnx; with --accelerator tensorrt, TensorRT runs what it can of the model."


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps the errors that TensorRT logs, since its calls do not raise them."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Take a line; see ``trt.ILogger``."""
        if severity.name in {"ERROR", "INTERNAL_ERROR"}:
            self.errors.append(" ".join(msg.split()))

    def messages(self) -> str:
        """Return every error in one line, or that there was none."""
        return "; ".join(dict.fromkeys(self.errors)) or "it does not say why"


def failed(reason: str, hint: str = "Use --format onnx.") -> ValidationFailedError:
    """Return the error for a model that TensorRT cannot build or run."""
    return ValidationFailedError(reason, hint=hint, kind="convert")


def build_plan(path: Path, profiles: Sequence[Profile], *, precision: str, gpu: Gpu) -> bytes:
    """Return the plan of an ONNX file for the first GPU, which has a cache of timings.

    Raises:
        ValidationFailedError: TensorRT cannot read the file, or build an engine of it.
        UnavailableError: TensorRT does not start on this GPU.
    """
    log = Log()
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # what the bindings make of a null pointer
        raise UnavailableError(
            f"TensorRT {trt.__version__} does not start on this GPU: {log.messages()}",
            hint="Is the driver new enough for it, and the GPU still supported? See nvidia-smi.",
        ) from error
    network = builder.create_network(_network_flags(precision))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        reason = f"cannot read the model: {_parser_errors(parser, log)}"
        raise failed(f"TensorRT {trt.__version__} {reason}", _HINT)
    _check_inputs(network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    _set_precision(config, precision)
    _add_profile(builder, config, profiles)
    timings = _timings(gpu)
    _take_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise failed(f"TensorRT {trt.__version__} cannot build the model: {log.messages()}", _HINT)
    _keep_timings(config, timings)
    return bytes(plan)


def _network_flags(precision: str) -> int:
    """Return the flag that tensors keep the types of the model, where TensorRT needs one.

    Up to TensorRT 10 the flags for lower precisions are for networks that choose types themselves;
    from 11 on there are no such networks. Rows are always an explicit axis.
    """
    typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    return 0 if _TYPED or precision != "fp32" else 1 << int(typed)


def _set_precision(config: Any, precision: str) -> None:
    if precision == "fp32":
        # Ten bits of mantissa are not the model's own float32, and on by default.
        config.clear_flag(trt.BuilderFlag.TF32)
    elif not _TYPED:
        config.set_flag(trt.BuilderFlag.FP16 if precision == "fp16" else trt.BuilderFlag.INT8)
    if hasattr(trt.BuilderFlag, "STRICT_NANS"):
        # Else x - x is 0 where x is infinite or no number.
        config.set_flag(trt.BuilderFlag.STRICT_NANS)


def _add_profile(builder: Any, config: Any, profiles: Sequence[Profile]) -> None:
    if not profiles:
        return
    profile = builder.create_optimization_profile()
    for sizes in profiles:
        profile.set_shape(sizes.name, sizes.min, sizes.opt, sizes.max)
    if config.add_optimization_profile(profile) < 0:
        shapes = ", ".join(f"{p.name} {list(p.min)} to {list(p.max)}" for p in profiles)
        raise failed(f"TensorRT does not take the sizes that the model is proven on: {shapes}")


def _check_inputs(network: Any) -> None:
    """Refuse inputs whose values are sizes: a profile would have to know them beforehand."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            raise failed(
                f"the values of input '{tensor.name}' decide the shapes of other tensors, and "
                "TensorRT would have to know them when it builds"
            )


def _parser_errors(parser: Any, log: Log) -> str:
    """Return every error of the parser with the node that it is about."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"{error.node_operator()} '{error.node_name()}': " if error.node_operator() else ""
        found.append(node + " ".join(error.desc().split()))
    return "; ".join(dict.fromkeys(found)) or log.messages()


def _timings(gpu: Gpu) -> Path:
    """Return the timing cache of a TensorRT on a kind of GPU, which makes builds quick."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu.name).strip("-").lower()
    file = f"timings-{trt.__version__}-{name}-sm{gpu.capability.replace('.', '')}.cache"
    return cache_directory() / "tensorrt" / file


def _take_timings(config: Any, path: Path) -> None:
    """Start from the timings of earlier builds; from none where they cannot be used."""
    content = b""
    with suppress(OSError):
        content = path.read_bytes()
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timings(config: Any, path: Path) -> None:
    """Keep what was measured for the next build; a cache that cannot be written stays as it is."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    with suppress(OSError):
        make_folder(path.parent)
        with tempfile.TemporaryDirectory(prefix="timings-", dir=path.parent) as scratch:
            written = Path(scratch, path.name)
            written.write_bytes(bytes(cache.serialize()))
            written.replace(path)
