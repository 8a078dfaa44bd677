"""Runs a model once, through the HTTP service or Triton, and compares with the registered model."""

from __future__ import annotations

import io
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
from starlette.concurrency import run_in_threadpool

from exporter.arrays import Arrays, as_bytes, read_npz, write_npz
from exporter.commands.infer.command import InferRequest, first_address
from exporter.commands.infer.command import infer as infer_on_triton
from exporter.commands.infer.inputs import read_inputs
from exporter.commands.infer.result import InferResult, storable
from exporter.errors import (
    ConflictError,
    StlabError,
    UnavailableError,
    ValidationFailedError,
    error_of,
)
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Evidence
from exporter.text.redaction import redact
from stlab_dashboard.registry_reader import Samples
from stlab_dashboard.settings import Settings

__all__ = ["SERVERS", "Comparison", "Inputs", "compare_with_sample", "infer"]

SERVERS = {"service": "the service (HTTP)", "triton": "Triton (gRPC)"}
_NPZ = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one inference, as a file whose name ends in ``.npz`` or ``.json``."""

    name: str
    content: bytes

    @classmethod
    def of(cls, arrays: Arrays) -> Inputs:
        """Return arrays as a npz."""
        file = io.BytesIO()
        write_npz(file, {n: storable(n, np.atleast_1d(array)) for n, array in arrays.items()})
        return cls("inputs.npz", file.getvalue())


async def infer(
    settings: Settings, via: str, model: str, inputs: Inputs, version: int | None = None
) -> InferResult:
    """Run one inference in a thread, via a key of `SERVERS`.

    The version is for Triton: the service serves the one of its own alias.

    Raises:
        StlabError: There is no response, or it is an error.
    """

    def run() -> InferResult:
        with tempfile.TemporaryDirectory(prefix="stlab-dashboard-") as folder:
            path = Path(folder, f"inputs{Path(inputs.name).suffix}")
            path.write_bytes(inputs.content)
            if via == "service":
                return _on_service(settings, model, path)
            url, seconds = first_address(settings.triton_url), settings.timeout_seconds
            result = infer_on_triton(InferRequest(model, path, url, version, deadline=seconds))
            if result.error is not None:
                raise error_of(result.exit_code, **result.error)
            return result

    return await run_in_threadpool(run)


def _on_service(settings: Settings, model: str, inputs: Path) -> InferResult:
    base = settings.api_url.rstrip("/")
    headers = {"Accept": _NPZ, "Content-Type": _NPZ}
    if inputs.suffix == ".npz":
        body = inputs.read_bytes()
    else:
        body = json.dumps({"inputs": read_inputs(inputs)}).encode()
        headers["Content-Type"] = "application/json"
    if key := settings.api_key.get_secret_value():
        headers["X-API-Key"] = key
    try:
        with httpx.Client(timeout=settings.timeout_seconds, headers=headers) as client:
            client.get(f"{base}/health/live")  # opening the connection is not part of the latency
            start = time.perf_counter()
            response = client.post(
                f"{base}/v1/models/{quote(model, safe='')}/predict", content=body
            )
            seconds = time.perf_counter() - start
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(
            f"the service at {redact(base)} does not answer ({type(error).__name__})",
            hint="Start it with stlab-api, or set STLAB_API_URL to its address.",
        ) from error
    if response.status_code != httpx.codes.OK:
        raise _http_error(response)
    version = response.headers.get("x-model-version", "")
    path = inputs.with_name("outputs.npz")
    path.write_bytes(response.content)
    try:
        outputs = {name: as_bytes(array) for name, array in read_npz(path).items()}
    except ValueError as error:
        raise ValidationFailedError(
            f"the response of the service at {redact(base)} is not an npz",
            hint="Check that STLAB_API_URL is the address of stlab-api.",
        ) from error
    return InferResult(
        model, int(version) if version.isdecimal() else None, round(seconds, 6), outputs
    )


def _http_error(response: httpx.Response) -> StlabError:
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = "the response has no detail"
    busy = response.status_code in {429, 502, 503, 504}
    kind: type[StlabError] = UnavailableError if busy else ConflictError
    hints = {
        401: "Set STLAB_DASHBOARD_API_KEY to a key that the service accepts.",
        404: "The service serves the models in its MLFLOW_MODEL_NAME.",
    }
    return kind(
        f"the service responds with HTTP {response.status_code}: {detail}",
        hint=hints.get(response.status_code, "Retry in a moment." if busy else ""),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between a response and the registered model's outputs; empty for nothing.

    The margin is the worst error divided by its tolerance: below 1 passes.
    """

    mismatch: str
    margin: float
    max_abs_error: float


def compare_with_sample(samples: Samples, case: str, outputs: Arrays) -> Comparison:
    """Compare outputs with the registered model's for the same sample."""
    expected = samples.cases[case].outputs
    evidence = Evidence()
    evidence.expect(samples.outputs)
    found = {
        # A scalar has an axis of one element on the wire.
        name: array[..., 0] if name in expected and array.ndim == expected[name].ndim + 1 else array
        for name, array in outputs.items()
    }
    differences = compare_outputs(samples.outputs, expected, found, samples.references.tolerances)
    mismatch = evidence.record(case, differences)
    return Comparison(mismatch, evidence.margin, evidence.max_abs_error)
