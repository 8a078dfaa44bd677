"""A backend and a predictor without a model, and the real application around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from stlab_api.app import create_app
from stlab_api.predictor import AliasTarget
from stlab_api.service import Service
from stlab_api.settings import Settings
from triton_client.types import ModelSpec, TensorSpec

__all__ = [
    "FakeBackend",
    "FakePredictor",
    "Running",
    "finished",
    "metric",
    "model_spec",
    "running",
    "settings_of",
]

Array = np.ndarray[Any, Any]
SECONDS = 10.0


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a test to its end; one that hangs fails."""

    async def limited() -> Any:
        async with asyncio.timeout(SECONDS):
            return await work

    return asyncio.run(limited())


def model_spec(
    name: str = "toy",
    *,
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 2)),),
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", (-1, 2)),),
    max_batch_size: int = 8,
) -> ModelSpec:
    return ModelSpec(name, "1", "fake", max_batch_size, inputs, outputs)


def _twice(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": inputs["x"] * np.float32(2)}


@dataclass
class FakePredictor:
    """Answers with twice its input.

    Attributes:
        gate: What a request waits for; None where it waits for nothing.
        error: What every request fails with.
        asked: The deadlines and ids of the requests, in their order, without the warm-up.
        entered: Set whenever a request, not the warm-up, has come.
    """

    spec: ModelSpec
    version: int
    examples: Mapping[str, Array]
    answer: Callable[[Mapping[str, Array]], Mapping[str, Array]] = _twice
    gate: asyncio.Event | None = None
    error: Exception | None = None
    warm_up_error: Exception | None = None
    is_ready: bool = True
    ready_error: Exception | None = None
    closed: bool = False
    warmed: bool = False
    under_way: int = 0
    closed_under_way: int | None = None
    asked: list[tuple[float, str]] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def predict(
        self, inputs: Mapping[str, Array], *, seconds: float, request_id: str = ""
    ) -> Mapping[str, Array]:
        if request_id == "warm-up":
            self.warmed = True
            if self.warm_up_error is not None:
                raise self.warm_up_error
            return self.answer(inputs)
        self.asked.append((seconds, request_id))
        self.under_way += 1
        self.entered.set()
        try:
            async with asyncio.timeout(seconds):
                if self.gate is not None:
                    await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return self.answer(inputs)

    async def reached(self, count: int) -> None:
        """Return once so many requests have come."""
        while len(self.asked) < count:
            self.entered.clear()
            await self.entered.wait()

    async def ready(self) -> bool:
        if self.ready_error is not None:
            raise self.ready_error
        return self.is_ready

    async def close(self) -> None:
        self.closed = True
        self.closed_under_way = self.under_way


@dataclass
class FakeBackend:
    """Opens fake predictors of whatever version it is asked for.

    Attributes:
        specs: The interface of each model.
        alias: The version that each model's alias names.
        make: Changes a predictor before it is opened.
        failing: Why a version cannot be opened.
        chosen: The version that answers instead of the alias's.
        opened: What was opened, in its order.
    """

    specs: dict[str, ModelSpec] = field(default_factory=lambda: {"toy": model_spec()})
    alias: dict[str, int] = field(default_factory=lambda: {"toy": 1, "income": 1})
    make: Callable[[FakePredictor], None] = lambda _: None
    failing: dict[int, Exception] = field(default_factory=dict)
    chosen: int | None = None
    opened: list[FakePredictor] = field(default_factory=list)
    looks: int = 0
    look_error: Exception | None = None
    closed: bool = False

    def look(self, name: str) -> AliasTarget:
        self.looks += 1
        if self.look_error is not None:
            raise self.look_error
        return AliasTarget(self.alias[name], {})

    async def choose(self, name: str, found: AliasTarget) -> int:
        return found.version if self.chosen is None else self.chosen

    async def open(self, name: str, version: int, found: AliasTarget) -> FakePredictor:
        if version in self.failing:
            raise self.failing[version]
        spec = self.specs[name]
        examples = {
            t.name: np.full([1 if s < 0 else s for s in t.shape], b"a", object)
            if t.datatype == "BYTES"
            else np.ones([1 if s < 0 else s for s in t.shape], t.dtype)
            for t in spec.inputs
        }
        predictor = FakePredictor(spec, version, examples)
        self.make(predictor)
        self.opened.append(predictor)
        return predictor

    async def close(self) -> None:
        self.closed = True


def settings_of(**changed: Any) -> Settings:
    """Return settings that take nothing from a file, and follow nothing by themselves."""
    given = {"MLFLOW_MODEL_NAME": "toy", "refresh_seconds": 3600.0, "allowed_hosts": "test",
             **changed}  # fmt: skip
    return Settings(_env_file=None, **given)


@dataclass
class Running:
    """A started service."""

    app: Any
    client: httpx.AsyncClient
    service: Service
    backend: FakeBackend

    async def predict(
        self, x: Any = ((1.0, 2.0),), headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return await self.client.post(
            "/v1/models/toy/predict", json={"inputs": {"x": x}}, headers=headers
        )

    async def follow(self, name: str = "toy") -> None:
        """Do at once what is done every few seconds."""
        await self.service._try_refresh(name)

    async def metrics(self) -> str:
        return (await self.client.get("/metrics")).text

    async def until(self, ask: Callable[[], Awaitable[httpx.Response]], wanted: int) -> None:
        """Ask until an answer has a status, or comes from a version."""
        while True:
            answer = await ask()
            found = answer.json().get("model", {}).get("version")
            if wanted in {answer.status_code, found}:
                return
            await asyncio.sleep(0)  # nothing else here gives way to others


@asynccontextmanager
async def running(backend: FakeBackend | None = None, **changed: Any) -> AsyncIterator[Running]:
    """Start the real application with a fake backend, and stop it."""
    backend = backend or FakeBackend()
    app = create_app(settings_of(**changed), backend)
    app.state.service._look_up = backend.look
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield Running(app, client, app.state.service, backend)


def metric(page: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the values of a metric by their labels, sorted."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }
