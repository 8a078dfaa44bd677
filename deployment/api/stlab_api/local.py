"""The backend ``local``: a version's proven bundle, run by ONNX Runtime in this process."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from exporter.arrays import Arrays, as_bytes, as_text
from exporter.bundle import SAMPLES, Bundle
from exporter.errors import ConflictError, UsageError
from exporter.names import ARCHIVED
from exporter.parity.evidence import Batching
from exporter.parity.samples import load_samples
from exporter.proven_bundle import recorded_bundle
from exporter.registry import Registry, fetch_bundle
from stlab_api.batching import Batcher
from stlab_api.predictor import AliasTarget
from stlab_api.settings import Settings
from triton_client.types import ModelSpec, TensorSpec

__all__ = ["LocalBackend", "LocalPredictor"]


class LocalBackend:
    """Opens bundles of the registry; `observe` gets the model and the rows of every run."""

    def __init__(self, settings: Settings, observe: Callable[[str, int], None]) -> None:
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
            return LocalPredictor(bundle, self._settings.threads, partial(self._observe, name))
        finally:
            # A loaded model needs its files no more.
            shutil.rmtree(folder, ignore_errors=True)


class LocalPredictor:
    """The model of a verified bundle; see `Predictor`.

    Raises:
        UsageError: This process cannot run its format.
    """

    def __init__(self, bundle: Bundle, threads: int, observe: Callable[[int], None]) -> None:
        import onnxruntime as ort

        form = bundle.manifest["format"]
        if form != "onnx":
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
        self.examples = _examples(bundle)
        self._session = ort.InferenceSession(
            str(bundle.path / "model.onnx"), options, providers=ort.get_available_providers()
        )
        self._outputs = [tensor.name for tensor in self.spec.outputs]
        self._texts = any(t.datatype == "BYTES" for t in (*self.spec.inputs, *self.spec.outputs))
        self._batcher = Batcher(self._run, bundle.max_batch_size, observe)

    async def predict(self, inputs: Arrays, *, seconds: float, request_id: str = "") -> Arrays:  # noqa: ARG002
        """Return the outputs; see `Predictor`."""
        async with asyncio.timeout(seconds):
            return await self._batcher.submit(inputs)

    async def ready(self) -> bool:
        """Return True: a loaded model always answers."""
        return True

    async def close(self) -> None:
        """Wait for the run under way."""
        await self._batcher.close()

    def _run(self, inputs: Arrays) -> Arrays:
        if not self._texts:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        given = {name: as_text(array) for name, array in inputs.items()}
        results = self._session.run(self._outputs, given)
        return dict(zip(self._outputs, map(as_bytes, results), strict=True))


def _spec(bundle: Bundle) -> ModelSpec:
    interface = bundle.manifest["interface"]
    inputs, outputs = (
        tuple(TensorSpec(t["name"], t["datatype"], tuple(t["shape"])) for t in tensors)
        for tensors in (interface["inputs"], interface["outputs"])
    )
    return ModelSpec(
        name=bundle.model,
        version=str(bundle.version),
        platform="onnxruntime_onnx",
        max_batch_size=bundle.max_batch_size,
        inputs=inputs,
        outputs=outputs,
    )


def _examples(bundle: Bundle) -> Arrays:
    """Return one row of the inputs of a bundle's first case."""
    rows = bundle.max_batch_size
    first = load_samples(bundle.path / SAMPLES, Batching(rows)).cases[0].case.inputs
    return {name: array[:1] if rows else array for name, array in first.items()}
