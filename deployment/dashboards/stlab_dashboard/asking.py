"""Asks a model once, through the service or Triton, and compares with what the registry says."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import httpx
import numpy as np

from exporter.arrays import as_bytes, read_npz, write_npz
from exporter.commands.infer.command import InferRequest, first_address, infer
from exporter.commands.infer.inputs import read_inputs
from exporter.commands.infer.result import InferResult, storable
from exporter.errors import ConflictError, StlabError, UnavailableError, ValidationFailedError
from exporter.parity.compare import compare_outputs
from exporter.parity.evidence import Evidence
from exporter.text.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stlab_dashboard.settings import Settings
    from stlab_dashboard.sources import Samples

__all__ = ["WAYS", "Ask", "Service", "Triton", "Verdict", "judge", "written"]

WAYS = ("service", "triton")
_NPZ = "application/octet-stream"


class Ask(Protocol):
    """A way to ask a model; it blocks."""

    def __call__(self, model: str, inputs: Path, version: int | None) -> InferResult:
        """Ask a model.

        Args:
            model: The model.
            inputs: A npz or JSON file with the inputs.
            version: The version, where one can be chosen.

        Returns:
            The answer; what went wrong is in it.
        """


class Triton:
    """Asks Triton, by `triton_client`."""

    def __init__(self, settings: Settings) -> None:
        self._url = first_address(settings.triton_url)
        self._seconds = settings.timeout_seconds

    def __call__(self, model: str, inputs: Path, version: int | None) -> InferResult:
        """See `Ask`."""
        return infer(InferRequest(model, inputs, self._url, version, deadline=self._seconds))


class Service:
    """Asks the service, by HTTP; it chooses the version by its own alias."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(
        self,
        model: str,
        inputs: Path,
        version: int | None,  # noqa: ARG002
    ) -> InferResult:
        """See `Ask`."""
        try:
            return self._ask(model, inputs)
        except StlabError as error:
            return InferResult(model).failed(error)

    def _ask(self, model: str, inputs: Path) -> InferResult:
        settings = self._settings
        headers = {"Accept": _NPZ}
        if inputs.suffix == ".npz":
            body, headers["Content-Type"] = inputs.read_bytes(), _NPZ
        else:
            body = json.dumps({"inputs": read_inputs(inputs)}).encode()
            headers["Content-Type"] = "application/json"
        if key := settings.api_key.get_secret_value():
            headers["X-API-Key"] = key
        base = settings.api_url.rstrip("/")
        try:
            with httpx.Client(timeout=settings.timeout_seconds) as client:
                client.get(f"{base}/health/live")  # what opening a connection takes is no latency
                begin = time.perf_counter()
                answer = client.post(
                    f"{base}/v1/models/{quote(model, safe='')}/predict",
                    content=body,
                    headers=headers,
                )
                seconds = time.perf_counter() - begin
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"the service does not answer at {redact(base)} ({type(error).__name__})",
                hint="Start it with stlab-api, or set STLAB_API_URL to where it runs.",
            ) from error
        if answer.status_code != httpx.codes.OK:
            raise _refused(answer)
        version = answer.headers.get("x-model-version", "")
        with tempfile.TemporaryDirectory(prefix="stlab-dashboard-") as folder:
            path = Path(folder, "answer.npz")
            path.write_bytes(answer.content)
            try:
                outputs = {name: as_bytes(array) for name, array in read_npz(path).items()}
            except ValueError as error:
                raise ValidationFailedError(
                    f"the service at {redact(base)} answers with something else than arrays",
                    hint="Check that STLAB_API_URL is that of stlab-api.",
                ) from error
        return InferResult(
            model, int(version) if version.isdecimal() else None, round(seconds, 6), outputs
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an answer lies to the registry model's.

    Attributes:
        problem: What differs; empty where nothing does.
        margin: The worst error divided by its budget: below 1 passes.
        max_abs_error: The largest difference.
    """

    problem: str
    margin: float
    max_abs_error: float


def judge(samples: Samples, case: str, outputs: Mapping[str, Any]) -> Verdict:
    """Compare an answer with what the registry model answers to the same sample."""
    expected = samples.expected(case)
    evidence = Evidence()
    evidence.expect(samples.outputs)
    found = {
        # A scalar has an axis of one element on the wire.
        name: array[..., 0] if name in expected and array.ndim == expected[name].ndim + 1 else array
        for name, array in outputs.items()
    }
    differences = compare_outputs(samples.outputs, expected, found, samples.references.tolerances)
    problem = evidence.record(case, differences)
    return Verdict(problem, evidence.margin, evidence.max_abs_error)


def written(inputs: Mapping[str, Any], folder: Path) -> Path:
    """Write inputs as a file that can be asked with."""
    path = folder / "inputs.npz"
    arrays = {name: storable(name, np.atleast_1d(array)) for name, array in inputs.items()}
    write_npz(path, arrays)
    return path


def _refused(answer: httpx.Response) -> StlabError:
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = "it does not say why"
    busy = answer.status_code in {429, 502, 503, 504}
    kind: type[StlabError] = UnavailableError if busy else ConflictError
    hints = {
        401: "Set STLAB_DASHBOARD_API_KEY to a key that the service knows.",
        404: "The service answers for the models in its MLFLOW_MODEL_NAME.",
    }
    return kind(
        f"the service refuses (HTTP {answer.status_code}): {detail}",
        hint=hints.get(answer.status_code, "Try again in a moment." if busy else ""),
    )
