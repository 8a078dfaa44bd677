"""The backend ``local``: a version's proven bundle, run by ONNX Runtime in this process."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.arrays import as_bytes, as_text
from exporter.bundle import SAMPLES, Bundle
from exporter.errors import ConflictError, UsageError
from exporter.interface import TensorEntry
from exporter.names import ARCHIVED
from exporter.parity.evidence import Batching
from exporter.parity.samples import load_samples
from exporter.proven_bundle import recorded_bundle
from exporter.registry import Registry, fetch_bundle
from stlab_api.batching import Batcher
from stlab_api.predictor import AliasTarget, Array
from triton_client.types import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from stlab_api.settings import Settings

__all__ = ["LocalBackend", "LocalPredictor"]

_FORMATS = {"onnx": "model.onnx"}


class LocalBackend:
    """Opens bundles of the registry.

    Args:
        settings: Where the registry is, and how many threads a model may use.
        observe: Called with the model and the rows of every run.
    """

    def __init__(
        self, settings: Settings, observe: Callable[[str, int], None] = lambda _name, _rows: None
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._folder = Path(tempfile.mkdtemp(prefix="stlab-api-"))

    async def choose(self, name: str, target: AliasTarget) -> int:  # noqa: ARG002 - of a Protocol
        """Return the alias's version; see `Backend`."""
        return target.version

    async def open(self, name: str, version: int, target: AliasTarget) -> LocalPredictor:
        """Fetch a version's bundle, check its files and load the model; see `Backend`."""
        return await asyncio.to_thread(self._open, name, version, target)

    async def close(self) -> None:
        """Remove the fetched files."""
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _open(self, name: str, version: int, target: AliasTarget) -> LocalPredictor:
        alias = self._settings.alias
        recorded = recorded_bundle(target.tags, "prod" if alias == ARCHIVED else alias)
        if recorded is None:
            raise ConflictError(
                f"'{alias}' of '{name}' points to version {version}, which has no passing evidence",
                hint=f"Promote it by a pipeline: stlab-export {name} --alias {alias}",
            )
        registry = Registry.connect(self._settings.tracking_uri)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-{version}-", dir=self._folder))
        try:
            bundle = fetch_bundle(
                registry, name, version, uri=recorded.uri, sha256=recorded.sha256, folder=folder
            )
            return LocalPredictor(
                bundle,
                threads=self._settings.threads,
                observe=lambda rows: self._observe(name, rows),
            )
        finally:
            # A loaded model needs its files no more.
            shutil.rmtree(folder, ignore_errors=True)


class LocalPredictor:
    """A bundle's model; see `Predictor`.

    Args:
        bundle: A verified bundle.
        threads: How many threads one run may use.
        observe: Called with the rows of every run.

    Raises:
        UsageError: This process cannot run its format.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, observe: Callable[[int], None] = lambda _: None
    ) -> None:
        import onnxruntime as ort

        form = str(bundle.manifest["format"])
        if form not in _FORMATS:
            raise UsageError(
                f"version {bundle.version} of '{bundle.model}' is exported as {form}, which this "
                "process does not run",
                hint="Set STLAB_API_BACKEND=triton, or export it as onnx.",
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.version = bundle.version
        self.spec = _spec(bundle)
        self.examples: Mapping[str, Array] = _examples(bundle)
        self._session = ort.InferenceSession(
            str(bundle.path / _FORMATS[form]), options, providers=ort.get_available_providers()
        )
        self._outputs = [tensor.name for tensor in self.spec.outputs]
        self._texts = any(t.datatype == "BYTES" for t in (*self.spec.inputs, *self.spec.outputs))
        self._batcher = Batcher(self._run, bundle.max_batch_size, observe)

    async def predict(
        self,
        inputs: Mapping[str, Array],
        *,
        seconds: float,
        request_id: str = "",  # noqa: ARG002 - of a Protocol
    ) -> Mapping[str, Array]:
        """Return the outputs; see `Predictor`."""
        async with asyncio.timeout(seconds):
            return await self._batcher.submit(inputs)

    async def ready(self) -> bool:
        """Return True: a loaded model always answers."""
        return True

    async def close(self) -> None:
        """Wait for the run under way."""
        await self._batcher.close()

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if not self._texts:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        given = {name: as_text(array) for name, array in inputs.items()}
        results = self._session.run(self._outputs, given)
        return dict(zip(self._outputs, map(as_bytes, results), strict=True))


def _spec(bundle: Bundle) -> ModelSpec:
    interface = bundle.manifest["interface"]

    def tensors(entries: list[TensorEntry]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(entry["name"], entry["datatype"], tuple(entry["shape"])) for entry in entries
        )

    return ModelSpec(
        name=bundle.model,
        version=str(bundle.version),
        platform="onnxruntime_onnx",
        max_batch_size=bundle.max_batch_size,
        inputs=tensors(interface["inputs"]),
        outputs=tensors(interface["outputs"]),
    )


def _examples(bundle: Bundle) -> dict[str, Any]:
    """Return one row of the inputs of a bundle's first case."""
    rows = bundle.max_batch_size
    first = load_samples(bundle.path / SAMPLES, Batching(rows)).cases[0].case.inputs
    return {name: array[:1] if rows else array for name, array in first.items()}
