"""Serves the version that an alias points to, and switches versions when the alias moves."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

from exporter.arrays import Arrays
from exporter.errors import StlabError
from exporter.registry import Registry
from stlab_api.metrics import Metrics
from stlab_api.predictor import AliasTarget, Backend, Predictor
from stlab_api.problems import Problem
from stlab_api.schemas import RequestSchema
from stlab_api.settings import Settings
from triton_client.errors import ModelNotFound, NotReady, TritonClientError

__all__ = ["LoadedModel", "Service"]

_log = logging.getLogger("stlab_api.service")
_CLOSE_SECONDS = 30.0


class LoadedModel:
    """A version that answers, and how many requests it is answering."""

    def __init__(self, predictor: Predictor, schema: RequestSchema) -> None:
        self.predictor = predictor
        self.schema = schema
        self.version = predictor.version
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def predict(self, inputs: Arrays, seconds: float, request_id: str) -> Arrays:
        """Return the outputs; see `Predictor.predict`."""
        self._under_way += 1
        self._idle.clear()
        try:
            return await self.predictor.predict(inputs, seconds=seconds, request_id=request_id)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def retire(self) -> None:
        """Close it once its last request is answered."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._idle.wait()
        await self.predictor.close()


class Service:
    """The models of one process.

    Attributes:
        models: The versions that answer, by model.
        draining: Whether the process is about to stop.
    """

    def __init__(self, settings: Settings, backend: Backend, metrics: Metrics) -> None:
        self._settings = settings
        self._backend = backend
        self._metrics = metrics
        self._registry: Registry | None = None
        self.models: dict[str, LoadedModel] = {}
        self._locks = {name: asyncio.Lock() for name in settings.models}
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling: asyncio.Task[None] | None = None
        self._problems: dict[str, str] = {}
        self.draining = False

    def model(self, name: str) -> LoadedModel:
        """Return the version of a model that answers.

        Raises:
            Problem: 404: the model is not served here. 503: it is not loaded yet.
        """
        if name in self.models:
            return self.models[name]
        if name not in self._locks:
            known = ", ".join(self._settings.models)
            raise Problem(
                404, "unknown-model", f"this service has no model '{name}'; it has {known}"
            )
        raise Problem(503, "not-ready", f"'{name}' is not ready: {self._reason(name)}")

    async def predict(
        self, name: str, inputs: Arrays, *, seconds: float, request_id: str = ""
    ) -> tuple[LoadedModel, Arrays]:
        """Return the version that answers, and its outputs.

        Promotions and rollbacks unload the old version from a server: where that happens during a
        request, the request is repeated once with the new version.

        Raises:
            Problem: See `model`.
            TimeoutError: The deadline passed.
            TritonClientError: The server refused or failed.
        """
        end = monotonic() + seconds
        first = self.model(name)
        try:
            return first, await first.predict(inputs, seconds, request_id)
        except (ModelNotFound, NotReady):
            left = end - monotonic()
            if left <= 0:
                raise
        async with asyncio.timeout(left):
            await self._refresh(name, missing=first)
        second = self.model(name)
        return second, await second.predict(inputs, max(end - monotonic(), 0.001), request_id)

    async def start(self) -> None:
        """Load the models and start to poll the alias, which also retries what failed to load."""
        await asyncio.gather(*(self._try_refresh(name) for name in self._settings.models))
        self._polling = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Stop to poll, and close all models."""
        self.draining = True
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        await asyncio.gather(*self._tasks, *(model.retire() for model in self.models.values()))
        self.models.clear()
        await self._backend.close()

    async def not_ready(self) -> str:
        """Return why the service should get no requests; empty if it should."""
        if self.draining:
            return "it is about to stop"
        for name in self._settings.models:
            model = self.models.get(name)
            if model is None:
                return f"'{name}' is not loaded: {self._reason(name)}"
            try:
                if not await model.predictor.ready():
                    await self._try_refresh(name)
                    model = self.models[name]
                    if not await model.predictor.ready():
                        return f"version {model.version} of '{name}' is not ready"
            except TritonClientError as error:
                return str(error)
        return ""

    def _reason(self, name: str) -> str:
        return self._problems.get(name, "it is being loaded")

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_seconds)
            for name in self._settings.models:
                await self._try_refresh(name)

    async def _try_refresh(self, name: str) -> None:
        """Refresh a model; if that fails, log it once and keep the version that answers."""
        try:
            await self._refresh(name)
        except Exception as error:  # noqa: BLE001 - the version that answers stays
            known = isinstance(error, StlabError | TritonClientError)
            reason = str(error) if known else repr(error)
            if self._problems.get(name) != reason:
                _log.warning("cannot follow '%s' of '%s': %s", self._settings.alias, name, reason)
            self._problems[name] = reason
        else:
            self._problems.pop(name, None)

    async def _refresh(self, name: str, missing: LoadedModel | None = None) -> None:
        """Load the version that the alias points to, if it does not answer already.

        Nothing is done if a version that the caller found missing was replaced meanwhile.
        """
        async with self._locks[name]:
            current = self.models.get(name)
            if missing is not None and current is not missing:
                return
            target = await asyncio.to_thread(self._look_up, name)
            version = await self._backend.choose(name, target)
            if current is not None and current.version == version:
                return
            self.models[name] = await self._load(name, version, target)
            before = None if current is None else current.version
            self._metrics.serves(name, self._settings.alias, version, before)
            _log.info("version %d of '%s' answers (before: %s)", version, name, before or "none")
            if current is not None:
                task = asyncio.create_task(current.retire())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _load(self, name: str, version: int, target: AliasTarget) -> LoadedModel:
        """Open a version and warm it up."""
        predictor = await self._backend.open(name, version, target)
        limits = self._settings
        try:
            schema = RequestSchema(
                predictor.spec, max_rows=limits.max_rows, max_bytes=limits.max_body_bytes
            )
            model = LoadedModel(predictor, schema)
            try:
                await model.predict(predictor.examples, limits.timeout_seconds, "warm-up")
            except TritonClientError as error:
                # A model may reject an example of zeros; the server has warmed it up itself.
                _log.debug("the warm-up was refused: %s", error)
        except BaseException:
            await predictor.close()
            raise
        return model

    def _look_up(self, name: str) -> AliasTarget:
        if self._registry is None:
            self._registry = Registry.connect(self._settings.tracking_uri)
        return AliasTarget(*self._registry.version_by_alias(name, self._settings.alias))
