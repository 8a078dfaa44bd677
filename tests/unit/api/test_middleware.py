"""Ids, limits, deadlines, metrics, logs and the end of a service."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from stlab_api.logs import set_up
from tests.unit.api.fakes import FakeBackend, FakePredictor, Running, finished, metric, running
from triton_client.errors import Overloaded

SECRET = "hunter2"
JSON = {"content-type": "application/json"}
BODY = b'{"inputs":{"x":[[1,2]]}}'


@pytest.fixture
def logged() -> Iterator[None]:
    """Leave the loggers as they were."""
    loggers = [logging.getLogger(name) for name in ("stlab_api", "uvicorn", "triton_client")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def requests(page: str) -> list[dict[str, str]]:
    return [dict(labels) for labels in metric(page, "stlab_api_requests_total")]


def test_a_request_id_is_kept() -> None:
    async def run() -> None:
        async with running() as toy:
            for given in ("a", "trace/1:2", "!~" * 64):
                answer = await toy.predict(headers={"x-request-id": given})
                assert answer.headers.get_list("x-request-id") == [given]
                assert toy.backend.opened[0].asked[-1][1] == given
                wrong = await toy.predict("no", headers={"x-request-id": given})
                assert wrong.headers["x-request-id"] == wrong.json()["request_id"] == given

    finished(run())


def test_without_a_good_request_id_one_is_made() -> None:
    async def run() -> None:
        async with running() as toy:
            given = (None, "", "a" * 129, "a b", "a\tb", "é", "a\x7fb")
            ids = set()
            for one in given * 2:
                headers = {} if one is None else {"x-request-id": one.encode("latin-1")}
                request = toy.client.build_request(
                    "POST", "/v1/models/toy/predict", content=BODY, headers={**JSON, **headers}
                )
                answer = await toy.client.send(request)
                assert answer.status_code == 200
                ids.add(answer.headers["x-request-id"])
            assert len(ids) == 2 * len(given)
            assert not ids & set(given)
            assert all(made.isalnum() for made in ids)
            assert {request_id for _, request_id in toy.backend.opened[0].asked} == ids

    finished(run())


def test_every_answer_has_an_id() -> None:
    async def run() -> None:
        async with running(max_body_bytes=10) as toy:
            for path in ("/health/live", "/metrics", "/v1/models/toy", "/nowhere", "/openapi.json"):
                assert (await toy.client.get(path)).headers["x-request-id"]
            refused = await toy.predict()
            assert refused.status_code == 413
            assert refused.json()["request_id"] == refused.headers["x-request-id"]

    finished(run())


def test_more_requests_than_allowed_are_told_to_come_again() -> None:
    async def run() -> None:
        async with running(max_concurrency=2) as toy:
            (model,) = toy.backend.opened
            model.gate = asyncio.Event()
            slow = [asyncio.ensure_future(toy.predict()) for _ in range(2)]
            await model.reached(2)
            refused = await toy.predict()
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:stlab:problem:overloaded"
            # What watches the service is never limited.
            for path in ("/health/live", "/health/ready", "/metrics"):
                assert (await toy.client.get(path)).status_code == 200
            page = await toy.metrics()
            assert metric(page, "stlab_api_requests_in_flight") == {(): 2}
            assert metric(page, "stlab_api_requests_refused_total") == {(): 1}
            model.gate.set()
            assert [a.status_code for a in await asyncio.gather(*slow)] == [200, 200]
            assert (await toy.predict()).status_code == 200
            assert metric(await toy.metrics(), "stlab_api_requests_in_flight") == {(): 0}
            assert len(model.asked) == 3

    finished(run())


def test_a_refused_request_does_not_take_a_place() -> None:
    async def run() -> None:
        async with running(max_concurrency=1) as toy:
            for _ in range(3):
                assert (await toy.predict("no")).status_code == 422
                assert (await toy.client.get("/nowhere")).status_code == 404
            assert (await toy.predict()).status_code == 200

    finished(run())


def test_a_body_that_says_it_is_too_long_is_not_read() -> None:
    async def run() -> None:
        async with running(max_body_bytes=len(BODY)) as toy:
            url = "/v1/models/toy/predict"
            assert (await toy.client.post(url, content=BODY, headers=JSON)).status_code == 200
            read = []

            async def body() -> AsyncIterator[bytes]:
                read.append(1)
                yield BODY + b" "

            headers = {**JSON, "content-length": str(len(BODY) + 1)}
            answer = await toy.client.post(url, content=body(), headers=headers)
            assert answer.status_code == 413
            assert answer.json()["type"] == "urn:stlab:problem:too-large"
            assert str(len(BODY)) in answer.json()["detail"]
            assert not read

    finished(run())


def test_a_body_in_chunks_is_read_up_to_the_limit_only() -> None:
    async def run() -> None:
        async with running(max_body_bytes=1000) as toy:
            url = "/v1/models/toy/predict"
            read = []

            async def chunks(count: int) -> AsyncIterator[bytes]:
                for place in range(count):
                    read.append(place)
                    yield b" " * 100
                yield BODY

            fits = await toy.client.post(url, content=chunks(9), headers=JSON)
            assert fits.status_code == 200
            read.clear()
            answer = await toy.client.post(url, content=chunks(10_000), headers=JSON)
            assert answer.status_code == 413
            assert len(read) <= 12

    finished(run())


def test_a_caller_may_shorten_the_deadline_and_not_lengthen_it() -> None:
    async def run() -> None:
        async with running(timeout_seconds=5.0) as toy:
            for wanted in ("0.5", "1000", "1e3"):
                headers = {"x-timeout-seconds": wanted}
                assert (await toy.predict(headers=headers)).status_code == 200
            given = [seconds for seconds, _ in toy.backend.opened[0].asked]
            assert 0 < given[0] <= 0.5
            assert all(0.5 < seconds <= 5.0 for seconds in given[1:])

    finished(run())


def test_a_deadline_that_makes_no_sense_is_refused() -> None:
    async def run() -> None:
        async with running() as toy:
            for wanted in ("0", "-1", "nan", "inf", "-inf", "1e999", "soon", "1s"):
                answer = await toy.predict(headers={"x-timeout-seconds": wanted})
                assert answer.status_code == 400, wanted
                assert "X-Timeout-Seconds" in answer.json()["detail"]
            assert not toy.backend.opened[0].asked

    finished(run())


def test_what_takes_too_long_is_504() -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].gate = asyncio.Event()
            answer = await toy.predict(headers={"x-timeout-seconds": "0.02"})
            assert answer.status_code == 504
            assert answer.json()["type"] == "urn:stlab:problem:timeout"
            assert answer.json()["detail"]
            toy.backend.opened[0].gate = None
            assert (await toy.predict()).status_code == 200

    finished(run())


def test_what_is_unexpected_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].error = RuntimeError(f"the password is {SECRET}")
            with caplog.at_level(logging.INFO, "stlab_api"):
                answer = await toy.predict(headers={"x-request-id": "find-me"})
            assert answer.status_code == 500
            assert SECRET not in answer.text
            assert "RuntimeError" not in answer.text
            assert answer.json()["request_id"] == "find-me"
            (told,) = [r for r in caplog.records if r.levelno == logging.ERROR]
            assert told.exc_info is not None
            assert SECRET in str(told.exc_info[1])
            assert told.fields["request_id"] == "find-me"  # type: ignore[attr-defined]
            toy.backend.opened[0].error = None
            assert (await toy.predict()).status_code == 200

    finished(run())


def test_who_goes_while_sending_is_no_failure_of_the_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with running() as toy:
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "path": "/v1/models/toy/predict",
                "raw_path": b"/v1/models/toy/predict",
                "query_string": b"",
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"99")],
                "scheme": "http",
                "server": ("test", 80),
                "client": ("test", 1),
                "root_path": "",
            }
            messages = iter(
                [
                    {"type": "http.request", "body": b'{"inputs"', "more_body": True},
                    {"type": "http.disconnect"},
                ]
            )

            async def receive() -> Any:
                return next(messages)

            async def send(message: Any) -> None:
                pass

            with caplog.at_level(logging.INFO, "stlab_api"):
                await toy.app(scope, receive, send)
            assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
            assert not [r for r in requests(await toy.metrics()) if r["status"].startswith("5")]
            assert metric(await toy.metrics(), "stlab_api_requests_in_flight") == {(): 0}

    finished(run())


def test_requests_are_counted_by_template_and_version() -> None:
    async def run() -> None:
        async with running() as toy:
            await toy.predict()
            await toy.predict()
            toy.backend.alias["toy"] = 2
            await toy.follow()
            await toy.predict()
            page = await toy.metrics()
            route = "/v1/models/{name}/predict"
            counted = metric(page, "stlab_api_requests_total")
            labels = {"method": "POST", "route": route, "status": "200", "model": "toy"}
            assert counted == {
                tuple(sorted({**labels, "version": "1"}.items())): 2,
                tuple(sorted({**labels, "version": "2"}.items())): 1,
            }
            seconds = metric(page, "stlab_api_request_seconds_count")
            assert {(dict(k)["route"], dict(k)["version"]): v for k, v in seconds.items()} == {
                (route, "1"): 2,
                (route, "2"): 1,
            }

    finished(run())


def test_a_failure_is_counted_for_the_version_that_failed() -> None:
    async def run() -> None:
        async with running() as toy:
            toy.backend.opened[0].error = Overloaded("the queue is full")
            assert (await toy.predict()).status_code == 503
            (labels,) = requests(await toy.metrics())
            assert (labels["status"], labels["model"], labels["version"]) == ("503", "toy", "1")

    finished(run())


def test_no_caller_makes_a_label() -> None:
    async def run() -> None:
        async with running() as toy:
            for path in (
                f"/{SECRET}",
                f"/v1/models/{SECRET}",
                f"/v1/models/{SECRET}/predict",
                f"/v1/{SECRET}?x={SECRET}",
                f"/docs/{SECRET}",
            ):
                for method in ("GET", "POST", SECRET.upper()):
                    await toy.client.request(method, path, headers={"x-request-id": SECRET})
            for path in ("/docs", "/openapi.json", "/v1/models/toy", "/v1/models/toy/predict"):
                answer = await toy.client.request(SECRET.upper(), path)
                assert answer.status_code == 405
            page = await toy.metrics()
            assert SECRET not in page
            assert SECRET.upper() not in page
            assert len(requests(page)) < 12

    finished(run())


def test_what_watches_is_neither_counted_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with running() as toy:
            caplog.clear()
            with caplog.at_level(logging.DEBUG, "stlab_api"):
                for path in ("/health/live", "/health/ready", "/metrics"):
                    assert (await toy.client.get(path)).status_code == 200
                assert not [r for r in caplog.records if r.name.startswith("stlab_api")]
                assert requests(await toy.metrics()) == []
                await toy.predict()
                assert [r for r in caplog.records if r.name == "stlab_api.access"]

    finished(run())


def test_the_frameworks_own_errors_are_problems() -> None:
    async def run() -> None:
        async with running() as toy:
            for method, path, status, kind in (
                ("GET", "/nowhere", 404, "no-such-path"),
                ("POST", "/nowhere", 404, "no-such-path"),
                ("GET", "/v1/models/toy/predict", 405, "no-such-method"),
                ("DELETE", "/v1/models/toy", 405, "no-such-method"),
            ):
                answer = await toy.client.request(method, path)
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["type"] == f"urn:stlab:problem:{kind}"
                assert answer.json()["status"] == status
                assert answer.json()["request_id"] == answer.headers["x-request-id"]
                assert ("allow" in answer.headers) == (status == 405)
            labels = requests(await toy.metrics())
            assert {(one["route"], one["method"]) for one in labels} == {("unknown", "other")}

    finished(run())


def test_head_is_answered_as_get() -> None:
    async def run() -> None:
        async with running() as toy:
            for path in ("/health/live", "/health/ready", "/v1/models/toy", "/docs"):
                answer = await toy.client.head(path)
                assert answer.status_code == 200, path
                assert answer.headers["content-type"].startswith(("application/json", "text/html"))
            labels = requests(await toy.metrics())
            assert {one["method"] for one in labels} == {"HEAD"}

    finished(run())


def test_a_service_that_is_about_to_stop_still_answers() -> None:
    async def run() -> None:
        async with running() as toy:
            assert "connection" not in (await toy.predict()).headers
            toy.service.draining = True
            answer = await toy.predict()
            assert answer.status_code == 200
            assert answer.headers["connection"] == "close"
            ready = await toy.client.get("/health/ready")
            assert ready.status_code == 503
            assert ready.json()["detail"] == "it is about to stop"
            assert ready.headers["connection"] == "close"
            assert (await toy.client.get("/health/live")).status_code == 200

    finished(run())


async def _everything(toy: Running) -> None:
    headers = {"x-request-id": "good-1"}
    await toy.client.post(
        f"/v1/models/toy/predict?q={SECRET}", json={"inputs": {"x": [[271828, 2]]}}, headers=headers
    )
    await toy.predict([[SECRET, 271828]], headers={"x-request-id": "wrong-1", "x-api-key": SECRET})
    await toy.client.get(f"/{SECRET}", headers={"x-request-id": "nowhere-1"})


def _refuse_nothing(predictor: FakePredictor) -> None:
    predictor.answer = lambda given: {"y": given["x"] * 0 + 271828}


def test_logs_for_machines(logged: None, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with running(FakeBackend(make=_refuse_nothing)) as toy:
            await _everything(toy)
            toy.backend.opened[0].error = RuntimeError("it broke")
            await toy.predict(headers={"x-request-id": "broken-1"})

    set_up("INFO", "json")
    finished(run())
    written = capsys.readouterr()
    assert written.out == ""
    assert SECRET not in written.err
    assert "271828" not in written.err
    entries = [json.loads(line) for line in written.err.splitlines()]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    by_id = {e["request_id"]: e for e in entries if e["logger"] == "stlab_api.access"}
    good = by_id["good-1"]
    assert good["message"] == "POST /v1/models/{name}/predict 200"
    assert (good["model"], good["version"], good["level"]) == ("toy", "1", "INFO")
    assert 0 <= good["seconds"] < 10
    assert by_id["wrong-1"]["message"].endswith(" 422")
    assert by_id["nowhere-1"]["message"] == "GET unknown 404"
    (error,) = [e for e in entries if e["level"] == "ERROR"]
    assert error["request_id"] == "broken-1"
    assert "RuntimeError: it broke" in error["error"]


def test_logs_for_people(logged: None, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with running(FakeBackend(make=_refuse_nothing)) as toy:
            await _everything(toy)

    set_up("INFO", "text")
    finished(run())
    written = capsys.readouterr().err
    assert SECRET not in written
    assert "271828" not in written
    (good,) = [line for line in written.splitlines() if "request_id=good-1" in line]
    assert "POST /v1/models/{name}/predict 200" in good
    assert "model=toy" in good
    assert "version=1" in good
    (loaded,) = [line for line in written.splitlines() if "version 1 of 'toy' answers" in line]
    assert "INFO" in loaded


def test_logs_may_be_less(logged: None, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with running() as toy:
            assert (await toy.predict()).status_code == 200

    set_up("WARNING", "text")
    finished(run())
    assert capsys.readouterr().err == ""
