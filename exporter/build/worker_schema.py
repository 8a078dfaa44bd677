"""The schemas of what the worker process writes: events, its result and the manifest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from exporter.text.terminal import safe_lines

__all__ = ["Event", "Manifest", "Outcome"]

Text = Annotated[str, AfterValidator(safe_lines)]
_Count = Annotated[int, Field(ge=0, lt=1 << 32)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Event(_Strict):
    """A progress event of the worker: one line of its stdout."""

    event: Literal["begin", "say", "end"]
    step: Literal["load", "reference", "convert", "configure"]
    text: Text = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    failed: bool = False


class _Error(_Strict):
    kind: Text
    message: Text
    hint: Text


class _Check(_Strict):
    name: Text
    passed: bool
    detail: Text
    cases: _Count
    margin: float | None


class _Batching(_Strict):
    max_batch_size: _Count
    reason: Text
    rows: _Count | None


class _Measured(_Strict):
    name: Text
    bytes: dict[str, int]
    milliseconds: dict[str, float]
    max_abs_error: dict[str, float | None]
    kept_float32: list[Text]


class _Evidence(_Strict):
    checks: list[_Check]
    notes: list[Text]
    precision: _Measured | Annotated[dict[str, None], Field(max_length=0)]
    batching: _Batching
    coverage: dict[Text, Annotated[list[_Count], Field(min_length=2, max_length=2)]]
    weaknesses: list[Text] | None
    warnings: list[Text]


class Outcome(_Strict):
    """The result that the worker writes at its end.

    Attributes:
        error: Kind, message and hint; None on success.
        exit_code: The exit code of the error.
        slow: Whether the reference model is slow to run.
        evidence: As `exporter.parity.evidence.Evidence.state`.
        uncompiled: Source files of imported modules without bytecode.
    """

    error: _Error | None
    exit_code: Annotated[int, Field(ge=0, le=6)]
    slow: bool
    evidence: _Evidence
    uncompiled: list[str]


class _Tensor(_Strict):
    name: str
    datatype: str
    shape: list[int]


class _Interface(_Strict):
    inputs: list[_Tensor]
    outputs: list[_Tensor]


class _File(_Strict):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """The fields of a manifest that later steps read."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    version: int
    format: str
    precision: str
    backend: str
    filename: str
    libraries: dict[str, str]
    target: dict[str, str]
    interface: _Interface
    batching: dict[str, str | int | None]
    settings: dict[str, Any]
    frozen_axes: list[str] = Field(default=[], max_length=256)
    files: dict[str, _File]
