"""What an export is asked to do: option over environment over ``.env`` over default."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import UsageError
from exporter.names import DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI, alias_name, model_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BATCHING",
    "PRECISIONS",
    "TIMEOUT_SECONDS",
    "ExportRequest",
    "byte_size",
]

BATCHING = ("auto", "require", "off")
PRECISIONS = ("fp32", "fp16", "int8")
ACCELERATORS = ("tensorrt",)
MAX_BATCH_SIZE = 32
# The reference is asked a full batch, which takes memory; nobody's server takes more in one.
MOST_ROWS = 65_536
# The proof has 8 requests under way; the protobuf's field is an unsigned number of 32 bits.
LEAST_QUEUE, MOST_QUEUE = 8, 2**32 - 1


# A large model may be converted for most of this; what takes longer has hung.
TIMEOUT_SECONDS, MOST_SECONDS = 3600.0, 604_800.0
# Below this not even the libraries can be loaded.
LEAST_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One export, as asked for.

    Attributes:
        model: The registered model.
        alias: The alias to move: ``dev``, ``staging`` or ``prod``.
        version: The version, or None for the alias's default.
        repository: The model repository: a folder, or a URL such as ``s3://bucket/prefix``.
        tracking_uri: The MLflow registry.
        triton_urls: gRPC addresses of live servers to activate on.
        triton_release: The Triton release that is to serve the model.
        prove_on: The gRPC address of a server to prove on; none for a private one.
        format: The target format.
        precision: The target precision.
        accelerator: ``tensorrt`` for Triton's TensorRT accelerator of ONNX models, or empty.
        batching: ``auto``, ``require`` or ``off``.
        max_batch_size: The most rows in one request.
        max_queue_size: How many requests may wait before more are refused; 0 for any number.
        samples: A npz with further inputs to prove the model on.
        expect_current: The version that the alias must name now; 0 for none.
        allow_pickle: Whether pickled content may be loaded, in a process that is kept to itself.
        unconfined: Whether that process has all rights of this user instead.
        timeout: Seconds that the model's process may take.
        model_memory: Bytes of memory that the model's process may take; 0 for what the machine has.
        allow_manual: Whether ``prod`` may be moved outside CI.
        dry_run: Whether to stop after planning.
    """

    model: str
    alias: str
    version: int | None = None
    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI
    triton_urls: tuple[str, ...] = ()
    triton_release: str = ""
    prove_on: str = ""
    format: str = "onnx"
    precision: str = "fp32"
    accelerator: str = ""
    batching: str = "auto"
    max_batch_size: int = MAX_BATCH_SIZE
    max_queue_size: int = 0
    samples: Path | None = None
    expect_current: int | None = None
    allow_pickle: bool = False
    unconfined: bool = False
    timeout: float = TIMEOUT_SECONDS
    model_memory: int = 0
    allow_manual: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        from exporter.formats import FORMATS
        from exporter.repository import StoreUrl, is_url
        from exporter.triton.addresses import check_addresses

        model_name(self.model)
        alias_name(self.alias)
        _one_of("--format", self.format, tuple(FORMATS))
        _one_of("--precision", self.precision, PRECISIONS)
        _one_of("--batching", self.batching, BATCHING)
        if self.accelerator:
            _one_of("--accelerator", self.accelerator, ACCELERATORS)
        if self.format != "onnx" and self.accelerator:
            raise UsageError(
                f"--accelerator is for --format onnx, not {self.format}",
                hint="Leave it out: the format names the engine already.",
            )
        if self.format == "torchscript" and self.precision != "fp32":
            raise UsageError(
                f"--precision {self.precision} is not for --format torchscript, which keeps the "
                "model's own types",
                hint="Use --format onnx or tensorrt.",
            )
        if not 1 <= self.max_batch_size <= MOST_ROWS:
            raise UsageError(
                f"--max-batch-size is at least 1 and at most {MOST_ROWS}",
                hint="Serve the model unbatched with --batching off.",
            )
        if self.max_queue_size and not LEAST_QUEUE <= self.max_queue_size <= MOST_QUEUE:
            raise UsageError(
                f"--max-queue-size is 0 or at least {LEAST_QUEUE}, since the proof asks as many at "
                f"once, and at most {MOST_QUEUE}",
                hint="Leave it out for a queue without bounds.",
            )
        if self.max_queue_size and self.batching == "off":
            raise UsageError(
                "--max-queue-size bounds the dynamic batcher's queue, and --batching off has none",
                hint="Leave one of the two options out.",
            )
        _check_bounds(self)
        if self.version is not None and self.version < 1:
            raise UsageError("--version is at least 1", hint="MLflow counts versions from 1.")
        if self.samples is not None and not self.samples.is_file():
            raise UsageError(f"there is no file {self.samples}", hint="Check --samples.")
        if is_url(self.repository):
            StoreUrl.parse(self.repository)
        check_addresses(*self.triton_urls, self.prove_on)


def _check_bounds(request: ExportRequest) -> None:
    if not 0 < request.timeout <= MOST_SECONDS:
        raise UsageError(
            f"--timeout is more than 0 and at most {MOST_SECONDS:g} seconds",
            hint=f"Leave it out for {TIMEOUT_SECONDS:g} seconds.",
        )
    if request.model_memory and request.model_memory < LEAST_MEMORY:
        raise UsageError(
            f"--model-memory is at least {LEAST_MEMORY >> 30}G",
            hint="Leave it out for what the machine has.",
        )
    if request.unconfined and not request.allow_pickle:
        raise UsageError(
            "only a model that may bring code can run unconfined",
            hint="Use --allow-pickle=unconfined.",
        )


def byte_size(text: str) -> int:
    """Return the bytes that a text such as ``8G``, ``512Mi`` or ``1000000`` means.

    Raises:
        UsageError: It is no such text.
    """
    found = re.fullmatch(r"(\d{1,18})([KMGT]?)(?:i?B?)", text, re.ASCII)
    if not found:
        raise UsageError(
            f"{text!r} is no size of memory", hint="Write it as 8G, which is 8 times 1024^3 bytes."
        )
    return int(found[1]) << (10 * " KMGT".index(found[2] or " "))


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{what} cannot be {value!r}", hint=f"Use one of: {', '.join(allowed)}.")
