"""Keeps the version that an alias names ready to answer, and follows the alias where it moves."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from exporter.errors import StlabError
from exporter.registry import Registry
from stlab_api.predictor import Found
from stlab_api.problems import Problem
from stlab_api.schemas import Codec
from triton_client.errors import ModelNotFound, NotReady, TritonClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stlab_api.metrics import Metrics
    from stlab_api.predictor import Array, Backend, Predictor
    from stlab_api.settings import Settings

__all__ = ["Answer", "Served", "Service"]

_log = logging.getLogger("stlab_api.service")
_CLOSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version answered.

    Attributes:
        outputs: The outputs by name.
        served: What answered.
    """

    outputs: Mapping[str, Array]
    served: Served


class Served:
    """One version that answers, with the requests that it still owes answers to."""

    def __init__(self, predictor: Predictor, codec: Codec) -> None:
        self.predictor = predictor
        self.codec = codec
        self.version = predictor.version
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def predict(self, inputs: Mapping[str, Array], seconds: float, request_id: str) -> Answer:
        """Return the version's answer; see `Predictor.predict`."""
        self._under_way += 1
        self._idle.clear()
        try:
            outputs = await self.predictor.predict(inputs, seconds=seconds, request_id=request_id)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        return Answer(outputs, self)

    async def retire(self) -> None:
        """Close it once it owes no answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._idle.wait()
        await self.predictor.close()


class Service:
    """The models of one service.

    Args:
        settings: What to serve.
        backend: Where it runs.
        metrics: Told which version answers.
        look: Returns what the alias of a model names, asked in a thread; the registry by default.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        metrics: Metrics,
        look: Callable[[str], Found] | None = None,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._metrics = metrics
        self._look = look or self._ask_registry
        self._registry: Registry | None = None
        self._served: dict[str, Served] = {}
        self._locks = {name: asyncio.Lock() for name in settings.models}
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._problems: dict[str, str] = {}
        self.draining = False

    @property
    def models(self) -> Mapping[str, Served]:
        """What answers, by model."""
        return self._served

    def served(self, name: str) -> Served:
        """Return what answers for a model.

        Raises:
            Problem: 404: it is not served here. 503: it is not loaded yet.
        """
        found = self._served.get(name)
        if found is not None:
            return found
        if name not in self._locks:
            known = ", ".join(self._settings.models)
            raise Problem(
                404, "unknown-model", f"this service has no model '{name}'; it has {known}"
            )
        why = self._problems.get(name, "it is being loaded")
        raise Problem(
            503, "not-ready", f"'{name}' is not ready: {why}", headers={"Retry-After": "1"}
        )

    async def predict(
        self, name: str, inputs: Mapping[str, Array], *, seconds: float, request_id: str = ""
    ) -> Answer:
        """Ask a model.

        A version that went while it was asked is asked for again once: promotions and rollbacks
        take the old version from the server.

        Raises:
            Problem: See `served`.
            TimeoutError: The deadline passed.
            TritonClientError: The server refused or failed.
        """
        end = monotonic() + seconds
        first = self.served(name)
        try:
            return await first.predict(inputs, seconds, request_id)
        except (ModelNotFound, NotReady):
            left = end - monotonic()
            if left <= 0:
                raise
        async with asyncio.timeout(left):
            await self._follow(name, past=first)
        return await self.served(name).predict(inputs, max(end - monotonic(), 0.001), request_id)

    async def start(self) -> None:
        """Load what can be loaded, and keep following; what cannot be loaded is tried again."""
        await asyncio.gather(*(self._tried(name) for name in self._settings.models))
        self._following = asyncio.create_task(self._keep_following())

    async def stop(self) -> None:
        """Stop following, and let go of everything."""
        self.draining = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        last = (served.retire() for served in self._served.values())
        await asyncio.gather(*self._tasks, *last)
        self._served.clear()
        await self._backend.close()

    async def not_ready(self) -> str:
        """Return why the service should get no requests; empty where it should."""
        if self.draining:
            return "it is about to stop"
        for name in self._settings.models:
            served = self._served.get(name)
            if served is None:
                return f"'{name}' is not loaded: {self._problems.get(name, 'it is being loaded')}"
            try:
                if not await served.predictor.ready():
                    await self._tried(name)
                    served = self._served[name]
                    if not await served.predictor.ready():
                        return f"version {served.version} of '{name}' is not ready"
            except TritonClientError as error:
                return str(error)
        return ""

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_seconds)
            for name in self._settings.models:
                await self._tried(name)

    async def _tried(self, name: str) -> None:
        try:
            await self._follow(name)
        except Exception as error:  # noqa: BLE001 - what answers goes on answering
            told = str(error) if isinstance(error, StlabError | TritonClientError) else repr(error)
            if self._problems.get(name) != told:
                _log.warning("cannot follow '%s' of '%s': %s", self._settings.alias, name, told)
            self._problems[name] = told
        else:
            self._problems.pop(name, None)

    async def _follow(self, name: str, past: Served | None = None) -> None:
        """Have the version answer that the alias names, or that the server has.

        Args:
            name: The model.
            past: What the caller found gone; nothing is done where another one answers already.
        """
        async with self._locks[name]:
            current = self._served.get(name)
            if past is not None and current is not past:
                return
            found = await asyncio.to_thread(self._look, name)
            version = await self._backend.choose(name, found)
            if current is not None and current.version == version:
                return
            predictor = await self._backend.open(name, version, found)
            limits = self._settings
            try:
                codec = Codec(
                    predictor.spec, max_rows=limits.max_rows, max_bytes=limits.max_body_bytes
                )
                fresh = Served(predictor, codec)
                await self._warm(fresh)
            except BaseException:
                await predictor.close()
                raise
            self._served[name] = fresh
            before = None if current is None else current.version
            self._metrics.serves(name, limits.alias, version, before)
            _log.info("version %d of '%s' answers (before: %s)", version, name, before or "none")
            if current is not None:
                self._spawn(current.retire())

    async def _warm(self, served: Served) -> None:
        try:
            await served.predict(
                served.predictor.examples, self._settings.timeout_seconds, "warm-up"
            )
        except TritonClientError as error:
            # An example of zeros need not make sense to a model; a server has warmed it up itself.
            _log.debug("the warm-up was refused: %s", error)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ask_registry(self, name: str) -> Found:
        if self._registry is None:
            self._registry = Registry.connect(self._settings.tracking_uri)
        return Found(*self._registry.version_by_alias(name, self._settings.alias))
