"""The request of an export, and the validation of its values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from exporter.commands.request import AliasRequest
from exporter.errors import UsageError

__all__ = ["PRECISIONS", "ExportRequest", "byte_size"]

PRECISIONS = ("fp32", "fp16", "int8")
# The reference runs a full batch, which takes memory.
MAX_ROWS = 65_536
# The proof sends 8 concurrent requests; the field of the config is an unsigned 32-bit integer.
MIN_QUEUE, MAX_QUEUE = 8, 2**32 - 1
# Converting a large model may take most of an hour.
TIMEOUT_SECONDS, MAX_SECONDS = 3600.0, 604_800.0
# With less not even the libraries can be loaded.
MIN_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class ExportRequest(AliasRequest):
    """The request of `export`.

    Attributes:
        version: The version, or None for the alias's default.
        triton_urls: gRPC addresses of live servers to activate on.
        triton_release: The Triton release that serves the model; empty for the default.
        prove_on: The gRPC address of a server to prove on; empty for a private one.
        format: ``onnx``, ``torchscript`` or ``tensorrt``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        accelerator: ``tensorrt`` for Triton's TensorRT accelerator of ONNX models, or empty.
        batching: ``auto``, ``require`` or ``off``.
        max_batch_size: The most rows in one request.
        max_queue_size: Requests that may wait before more are rejected; 0 for any number.
        samples: A npz with further inputs to prove the model on.
        expect_current: The version that the alias must point to now; 0 for none.
        allow_pickle: Whether pickled content may be loaded, in a sandboxed process.
        unconfined: Whether that process has all rights of this user instead.
        timeout: Seconds that the model's process may take.
        model_memory: Bytes of memory that the model's process may use; 0 for all of the machine's.
        allow_manual: Whether ``prod`` may be moved outside CI.
        allow_weak_evidence: Whether ``prod`` takes a version with weak evidence, on record.
        require_coverage: The least share, from 0 to 1, of everything that is counted.
        dry_run: Whether to stop after planning.

    Raises:
        UsageError: A value is invalid, or two of them contradict each other.
        NotFoundError: The alias does not exist.
    """

    version: int | None = None
    triton_urls: tuple[str, ...] = ()
    triton_release: str = ""
    prove_on: str = ""
    format: str = "onnx"
    precision: str = "fp32"
    accelerator: str = ""
    batching: str = "auto"
    max_batch_size: int = 32
    max_queue_size: int = 0
    samples: Path | None = None
    expect_current: int | None = None
    allow_pickle: bool = False
    unconfined: bool = False
    timeout: float = TIMEOUT_SECONDS
    model_memory: int = 0
    allow_manual: bool = False
    allow_weak_evidence: bool = False
    require_coverage: float = 0.0
    dry_run: bool = False

    def __post_init__(self) -> None:
        from exporter.formats import FORMATS
        from exporter.repository import StoreUrl, is_url
        from exporter.triton.addresses import check_addresses

        AliasRequest.__post_init__(self)
        _one_of("--format", self.format, tuple(FORMATS))
        _one_of("--precision", self.precision, PRECISIONS)
        _one_of("--batching", self.batching, ("auto", "require", "off"))
        if self.accelerator:
            _one_of("--accelerator", self.accelerator, ("tensorrt",))
        if self.format != "onnx" and self.accelerator:
            raise UsageError(
                f"--accelerator requires --format onnx, not {self.format}",
                hint="Omit --accelerator: the format determines the engine.",
            )
        if self.format == "torchscript" and self.precision != "fp32":
            raise UsageError(
                f"--format torchscript does not support --precision {self.precision}: it keeps the "
                "model's own types",
                hint="Use --format onnx or tensorrt.",
            )
        if not 1 <= self.max_batch_size <= MAX_ROWS:
            raise UsageError(
                f"--max-batch-size must be at least 1 and at most {MAX_ROWS}",
                hint="To serve the model unbatched, use --batching off.",
            )
        if self.max_queue_size and not MIN_QUEUE <= self.max_queue_size <= MAX_QUEUE:
            raise UsageError(
                f"--max-queue-size must be 0 or at least {MIN_QUEUE}, the concurrent requests of "
                f"the proof, and at most {MAX_QUEUE}",
                hint="Omit it for an unbounded queue.",
            )
        if self.max_queue_size and self.batching == "off":
            raise UsageError(
                "--max-queue-size limits the dynamic batcher, which --batching off disables",
                hint="Omit one of the two options.",
            )
        _check_bounds(self)
        if self.version is not None and self.version < 1:
            raise UsageError("--version must be at least 1", hint="MLflow counts versions from 1.")
        if self.samples is not None and not self.samples.is_file():
            raise UsageError(f"file {self.samples} does not exist", hint="Check --samples.")
        if is_url(self.repository):
            StoreUrl.parse(self.repository)
        check_addresses(*self.triton_urls, self.prove_on)


def _check_bounds(request: ExportRequest) -> None:
    if not 0 < request.timeout <= MAX_SECONDS:
        raise UsageError(
            f"--timeout must be more than 0 and at most {MAX_SECONDS:g} seconds",
            hint=f"Omit it for {TIMEOUT_SECONDS:g} seconds.",
        )
    if request.model_memory and request.model_memory < MIN_MEMORY:
        raise UsageError(
            f"--model-memory must be at least {MIN_MEMORY >> 30}G",
            hint="Omit it for all of the machine's memory.",
        )
    if not 0 <= request.require_coverage <= 1:
        raise UsageError(
            "--require-coverage must be at least 0 and at most 1",
            hint="0.9 requires nine tenths of everything that is counted.",
        )
    if request.unconfined and not request.allow_pickle:
        raise UsageError(
            "unconfined is only for models that may contain code",
            hint="Use --allow-pickle=unconfined.",
        )


def byte_size(text: str) -> int:
    """Parse a size such as ``8G``, ``512Mi`` or ``1000000`` into bytes.

    Raises:
        UsageError: The text is not a size.
    """
    found = re.fullmatch(r"(\d{1,18})([KMGT]?)(?:i?B?)", text, re.ASCII)
    if not found:
        raise UsageError(
            f"{text!r} is not a memory size", hint="Write it as 8G, which is 8 times 1024^3 bytes."
        )
    return int(found[1]) << (10 * " KMGT".index(found[2] or " "))


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} cannot be {value!r}", hint=f"Use one of: {', '.join(allowed)}.")
