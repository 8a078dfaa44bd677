"""The version that answers is the one that the alias names, at any time."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from exporter.errors import NotFoundError, UnavailableError
from tests.unit.api.fakes import FakeBackend, FakePredictor, finished, metric, model_spec, running
from triton_client.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    NotReady,
    Overloaded,
    ServerError,
    TritonClientError,
    Unavailable,
)
from triton_client.types import TensorSpec


def version_of(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["model"]["version"]
    return version


def test_a_version_answers_once_it_is_warm() -> None:
    async def run() -> None:
        async with running() as toy:
            assert version_of(await toy.predict()) == 1
            (first,) = toy.backend.opened
            assert first.warmed
            ready = await toy.client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (200, {"models": {"toy": 1}})
            shown = (await toy.client.get("/v1/models/toy")).json()
            assert shown == {
                "name": "toy",
                "alias": "prod",
                "version": 1,
                "max_batch_size": 8,
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
            }
        assert first.closed
        assert toy.backend.closed

    finished(run())


def test_the_alias_moves_and_the_old_version_ends_after_its_answers() -> None:
    async def run() -> None:
        async with running() as toy:
            (old,) = toy.backend.opened
            old.gate = asyncio.Event()
            slow = asyncio.ensure_future(toy.predict())
            await old.entered.wait()
            toy.backend.alias["toy"] = 2
            await toy.follow()
            assert version_of(await toy.predict()) == 2
            assert not old.closed
            old.gate.set()
            assert version_of(await slow) == 1
        assert old.closed
        assert old.closed_under_way == 0

    finished(run())


def test_the_old_version_is_closed_while_the_service_goes_on() -> None:
    closed = asyncio.Event()

    def telling(predictor: FakePredictor) -> None:
        close = predictor.close

        async def told() -> None:
            await close()
            if predictor.version == 1:
                closed.set()

        predictor.close = told  # type: ignore[method-assign]

    async def run() -> None:
        async with running(FakeBackend(make=telling)) as toy:
            toy.backend.alias["toy"] = 2
            await toy.follow()
            await closed.wait()
            assert version_of(await toy.predict()) == 2
            assert [p.closed for p in toy.backend.opened] == [True, False]

    finished(run())


def test_nobody_sees_a_version_before_it_is_warm() -> None:
    async def run() -> None:
        async with running() as toy:
            opening, go = asyncio.Event(), asyncio.Event()
            warm = FakePredictor.predict

            class Slow(FakePredictor):
                async def predict(self, *args: Any, **given: Any) -> Any:
                    if given["request_id"] == "warm-up":
                        opening.set()
                        await go.wait()
                    return await warm(self, *args, **given)

            def slow(predictor: FakePredictor) -> None:
                predictor.__class__ = Slow

            toy.backend.make = slow
            toy.backend.alias["toy"] = 2
            following = asyncio.ensure_future(toy.follow())
            await opening.wait()
            assert version_of(await toy.predict()) == 1
            go.set()
            await following
            assert version_of(await toy.predict()) == 2

    finished(run())


def test_no_request_fails_while_versions_come_and_go() -> None:
    async def run() -> None:
        async with running() as toy:
            over = asyncio.Event()
            versions: list[int] = []

            async def asking() -> None:
                while not over.is_set():
                    versions.append(version_of(await toy.predict()))
                    await asyncio.sleep(0)

            askers = [asyncio.ensure_future(asking()) for _ in range(4)]
            for version in (2, 1, 3, 4):
                toy.backend.alias["toy"] = version
                await toy.follow()
                assert version_of(await toy.predict()) == version
            over.set()
            await asyncio.gather(*askers)
            assert len(set(versions)) > 1
        assert all(p.closed and p.closed_under_way == 0 for p in toy.backend.opened)
        assert [p.version for p in toy.backend.opened] == [1, 2, 1, 3, 4]

    finished(run())


def test_the_same_version_is_not_opened_again() -> None:
    async def run() -> None:
        async with running() as toy:
            await toy.follow()
            await toy.follow()
            assert len(toy.backend.opened) == 1
            assert toy.backend.looks == 3

    finished(run())


def test_the_alias_is_followed_in_the_background() -> None:
    async def run() -> None:
        async with running(refresh_seconds=0.001) as toy:
            toy.backend.alias["toy"] = 7
            await toy.until(toy.predict, 7)
            toy.backend.look_error = UnavailableError("the registry is away")
            looks = toy.backend.looks
            while toy.backend.looks < looks + 3:
                assert version_of(await toy.predict()) == 7
                await asyncio.sleep(0)
            toy.backend.look_error = None
            toy.backend.alias["toy"] = 8
            await toy.until(toy.predict, 8)

    finished(run())


@pytest.mark.parametrize(
    "error", [UnavailableError("no disk"), ServerError("no load"), RuntimeError("a bug")]
)
def test_a_failing_load_keeps_the_old_version(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.failing[2] = error
            toy.backend.alias["toy"] = 2
            with caplog.at_level(logging.WARNING, "stlab_api"):
                await toy.follow()
                await toy.follow()
            assert version_of(await toy.predict()) == 1
            assert (await toy.client.get("/health/ready")).status_code == 200
            assert not toy.backend.opened[0].closed
            # Told once, not every few seconds.
            told = [r for r in caplog.records if r.levelno >= logging.WARNING]
            assert len(told) == 1
            assert str(error) in told[0].getMessage()
            toy.backend.failing.clear()
            await toy.follow()
            assert version_of(await toy.predict()) == 2

    finished(run())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), TimeoutError()])
def test_a_version_that_fails_to_warm_up_is_closed_again(error: Exception) -> None:
    def failing(predictor: FakePredictor) -> None:
        predictor.warm_up_error = error if predictor.version == 2 else None

    async def run() -> None:
        async with running(FakeBackend(make=failing)) as toy:
            toy.backend.alias["toy"] = 2
            await toy.follow()
            await toy.follow()
            assert version_of(await toy.predict()) == 1
            # Else every few seconds one more of them stays in memory.
            assert [p.closed for p in toy.backend.opened if p.version == 2] == [True, True]

    finished(run())


def test_an_example_that_a_server_refuses_is_no_reason_not_to_serve() -> None:
    def failing(predictor: FakePredictor) -> None:
        predictor.warm_up_error = InvalidInput("zeros make no sense")

    async def run() -> None:
        async with running(FakeBackend(make=failing)) as toy:
            assert version_of(await toy.predict()) == 1

    finished(run())


@pytest.mark.parametrize("gone", [ModelNotFound("gone"), NotReady("unloading")])
def test_a_version_that_went_is_asked_for_again(gone: TritonClientError) -> None:
    async def run() -> None:
        async with running() as toy:
            (old,) = toy.backend.opened
            old.error = gone
            toy.backend.alias["toy"] = 2
            answer = await toy.predict([[1, 2], [3, 4]])
            assert version_of(answer) == 2
            assert answer.json()["outputs"] == {"y": [[2.0, 4.0], [6.0, 8.0]]}
            assert len(old.asked) == 1
            ((seconds, request_id),) = toy.backend.opened[1].asked
            assert request_id == old.asked[0][1]
            assert 0 < seconds <= old.asked[0][0]
            page = await toy.metrics()
            (labels,) = metric(page, "stlab_api_requests_total")
            assert dict(labels)["version"] == "2"

    finished(run())


def test_a_version_that_went_is_opened_once_for_all_who_ask() -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].error = ModelNotFound("gone")
            toy.backend.alias["toy"] = 2
            answers = await asyncio.gather(*(toy.predict() for _ in range(8)))
            assert [version_of(a) for a in answers] == [2] * 8
            assert len(toy.backend.opened) == 2
            assert toy.backend.looks == 2  # at the start, and once for all of them

    finished(run())


def test_it_is_asked_for_again_once_only() -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.make = lambda p: setattr(p, "error", ModelNotFound("gone, too"))
            toy.backend.opened[0].error = ModelNotFound("gone")
            toy.backend.alias["toy"] = 2
            answer = await toy.predict()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["type"] == "urn:stlab:problem:not-ready"
            assert [len(p.asked) for p in toy.backend.opened] == [1, 1]

    finished(run())


def test_where_the_alias_has_not_moved_it_is_asked_for_again_as_it_is() -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].error = ModelNotFound("gone")
            answer = await toy.predict()
            assert answer.status_code == 503
            assert len(toy.backend.opened[0].asked) == 2
            toy.backend.opened[0].error = None
            assert version_of(await toy.predict()) == 1

    finished(run())


def test_what_is_asked_for_again_keeps_the_deadline() -> None:
    async def run() -> None:
        async with running(timeout_seconds=0.1) as toy:
            toy.backend.opened[0].error = ModelNotFound("gone")
            toy.backend.alias["toy"] = 2

            def stuck(predictor: FakePredictor) -> None:
                predictor.gate = asyncio.Event()

            toy.backend.make = stuck
            loop = asyncio.get_running_loop()
            began = loop.time()
            answer = await toy.predict()
            assert answer.status_code == 504
            assert loop.time() - began < 2
            assert toy.backend.opened[1].asked[0][0] <= 0.1

    finished(run())


def test_a_slow_registry_does_not_hold_a_request_beyond_its_deadline() -> None:
    async def run() -> None:
        async with running(timeout_seconds=0.1) as toy:
            toy.backend.opened[0].error = ModelNotFound("gone")
            never = asyncio.Event()

            async def stuck(name: str, found: Any) -> int:
                await never.wait()
                return 2

            toy.backend.choose = stuck  # type: ignore[method-assign]
            assert (await toy.predict()).status_code == 504

    finished(run())


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (DeadlineExceeded("too late"), 504, "timeout"),
        (TimeoutError(), 504, "timeout"),
        (Overloaded("the queue is full"), 503, "overloaded"),
        (Unavailable("no connection"), 503, "unavailable"),
        (InvalidInput("x is odd"), 422, "invalid-input"),
        (ServerError("it broke"), 502, "server"),
    ],
)
def test_other_failures_are_told_and_not_tried_again(
    error: Exception, status: int, kind: str
) -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].error = error
            answer = await toy.predict()
            assert answer.status_code == status
            told = answer.json()
            assert told["type"] == f"urn:stlab:problem:{kind}"
            assert told["status"] == status
            assert str(error) in told["detail"]
            assert told["detail"]
            assert ("retry-after" in answer.headers) == (status == 503)
            assert len(toy.backend.opened[0].asked) == 1

    finished(run())


def test_what_the_alias_names_need_not_be_what_the_server_has() -> None:
    async def run() -> None:
        async with running(FakeBackend(chosen=5)) as toy:
            assert version_of(await toy.predict()) == 5

    finished(run())


def test_what_cannot_be_loaded_at_start_is_tried_again() -> None:
    async def run() -> None:
        backend = FakeBackend(look_error=NotFoundError("no version of 'toy' is called 'prod'"))
        async with running(backend, refresh_seconds=0.001) as toy:
            assert (await toy.client.get("/health/live")).status_code == 200
            ready = await toy.client.get("/health/ready")
            assert ready.status_code == 503
            assert "no version of 'toy' is called 'prod'" in ready.json()["detail"]
            answer = await toy.predict()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["type"] == "urn:stlab:problem:not-ready"
            assert (await toy.client.get("/v1/models/toy")).status_code == 503
            backend.look_error = None
            await toy.until(lambda: toy.client.get("/health/ready"), 200)
            assert version_of(await toy.predict()) == 1

    finished(run())


def test_one_model_that_cannot_be_loaded_leaves_the_others() -> None:
    async def run() -> None:
        specs = {"toy": model_spec(), "other": model_spec("other")}
        backend = FakeBackend(specs=specs, alias={"toy": 1, "other": 2})
        backend.failing[2] = UnavailableError("no disk")
        async with running(backend, MLFLOW_MODEL_NAME="toy, other") as toy:
            assert version_of(await toy.predict()) == 1
            ready = await toy.client.get("/health/ready")
            assert ready.status_code == 503
            assert "'other'" in ready.json()["detail"]
            assert "no disk" in ready.json()["detail"]

    finished(run())


def test_readiness_asks_the_version_that_answers() -> None:
    async def run() -> None:
        async with running() as toy:
            (first,) = toy.backend.opened
            first.is_ready = False
            ready = await toy.client.get("/health/ready")
            assert ready.status_code == 503
            assert ready.json()["detail"] == "version 1 of 'toy' is not ready"
            first.is_ready = True
            first.ready_error = Unavailable("nobody listens", server="triton:8001")
            ready = await toy.client.get("/health/ready")
            assert (ready.status_code, ready.json()["detail"]) == (
                503,
                "triton:8001: nobody listens",
            )
            first.ready_error = None
            assert (await toy.client.get("/health/ready")).status_code == 200

    finished(run())


def test_readiness_goes_over_to_a_new_version() -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].is_ready = False
            toy.backend.alias["toy"] = 2
            ready = await toy.client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (200, {"models": {"toy": 2}})

    finished(run())


def test_readiness_is_shown_in_the_metrics() -> None:
    async def run() -> None:
        async with running() as toy:
            assert metric(await toy.metrics(), "stlab_api_ready") == {(): 1}
            toy.backend.opened[0].is_ready = False
            assert metric(await toy.metrics(), "stlab_api_ready") == {(): 0}
            toy.backend.opened[0].is_ready = True
            assert metric(await toy.metrics(), "stlab_api_ready") == {(): 1}
            toy.service.draining = True
            assert metric(await toy.metrics(), "stlab_api_ready") == {(): 0}

    finished(run())


def test_the_version_that_answers_is_shown_in_the_metrics() -> None:
    def shown(page: str) -> list[dict[str, str]]:
        return [dict(labels) for labels in metric(page, "stlab_api_model_info")]

    async def run() -> None:
        async with running() as toy:
            assert shown(await toy.metrics()) == [{"model": "toy", "alias": "prod", "version": "1"}]
            toy.backend.alias["toy"] = 2
            await toy.follow()
            assert shown(await toy.metrics()) == [{"model": "toy", "alias": "prod", "version": "2"}]

    finished(run())


def test_a_request_that_comes_while_the_version_changes_fits_the_new_one() -> None:
    renamed = model_spec(inputs=(TensorSpec("z", "FP32", (-1, 2)),))

    async def run() -> None:
        async with running() as toy:
            begun, go = asyncio.Event(), asyncio.Event()

            async def body() -> Any:
                begun.set()
                yield b'{"inputs":'
                await go.wait()
                yield b'{"x":[[1,2]]}}'

            asked = asyncio.ensure_future(
                toy.client.post(
                    "/v1/models/toy/predict",
                    content=body(),
                    headers={"content-type": "application/json"},
                )
            )
            await begun.wait()
            toy.backend.specs["toy"] = renamed
            toy.backend.make = lambda p: setattr(p, "answer", lambda given: {"y": given["z"]})
            toy.backend.alias["toy"] = 2
            await toy.follow()
            go.set()
            answer = await asked
            # The new version has no input 'x', and says so; it never gets one.
            assert answer.status_code == 422
            assert "/inputs/x" in {e["pointer"] for e in answer.json()["errors"]}

    finished(run())


def test_everything_is_closed_at_the_end_even_what_was_about_to_go() -> None:
    async def run() -> None:
        async with running() as toy:
            (old,) = toy.backend.opened
            old.gate = asyncio.Event()
            slow = asyncio.ensure_future(toy.predict())
            await old.entered.wait()
            toy.backend.alias["toy"] = 2
            await toy.follow()
            stopping = asyncio.ensure_future(toy.service.stop())
            await asyncio.sleep(0)
            old.gate.set()
            assert version_of(await slow) == 1
            await stopping
            assert [p.closed for p in toy.backend.opened] == [True, True]
            assert old.closed_under_way == 0

    finished(run())


def test_an_unknown_model_is_not_found() -> None:
    async def run() -> None:
        async with running() as toy:
            for answer in (
                await toy.client.post("/v1/models/other/predict", json={"inputs": {}}),
                await toy.client.get("/v1/models/other"),
            ):
                assert answer.status_code == 404
                assert answer.json()["type"] == "urn:stlab:problem:unknown-model"
                assert "toy" in answer.json()["detail"]

    finished(run())
