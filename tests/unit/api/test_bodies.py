"""Bodies of any content, type and encoding: refused in words or answered, and never a failure."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stlab_api.plugins import ModelInfo
from tests.unit.api.fakes import FakeBackend, Running, finished, model_spec, running
from triton_client.types import TensorSpec

PREDICT = "/v1/models/toy/predict"
BODY = b'{"inputs":{"x":[[1,2]]}}'
JSON = {"content-type": "application/json"}
KNOWN = {200, 400, 404, 408, 413, 415, 422}


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def changed(good: bytes) -> st.SearchStrategy[bytes]:
    """A good body with some of its bytes replaced, cut or doubled."""

    def change(places: list[tuple[int, bytes]], end: int) -> bytes:
        body = bytearray(good)
        for place, part in places:
            at = place % (len(body) + 1)
            body[at : at + len(part)] = part
        return bytes(body[: end % (2 * len(good)) or None])

    places = st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=8)), max_size=4)
    return st.builds(change, places, st.integers(0, 10**6))


GOOD = (BODY, npz(x=np.ones((1, 2), np.float32)), b'{"inputs":{"x":[[1e400,NaN]]}}')
bodies = st.binary(max_size=200) | st.one_of(*(changed(good) for good in GOOD))
kinds = st.sampled_from(
    ["application/json", "application/octet-stream", "application/x-npz", "text/plain", "", "x"]
) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
encodings = st.sampled_from(
    ["", "identity", "gzip", "GZIP", "x-gzip", "br", "gzip, gzip", "deflate"]
)
paths = st.sampled_from(
    [PREDICT, "/v1/models/words/predict", "/v1/models/none/predict", "/", "/docs"]
)
Case = tuple[str, bytes, str, str, bool]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cases=st.lists(
        st.tuples(paths, bodies, kinds, encodings, st.booleans()), min_size=5, max_size=20
    )
)
def test_no_body_makes_the_service_fail(cases: list[Case]) -> None:
    words = model_spec("words", inputs=(TensorSpec("x", "BYTES", (-1, 2)),))
    backend = FakeBackend(
        specs={"toy": model_spec(), "words": words},
        alias={"toy": 1, "words": 1},
        make=lambda model: setattr(model, "answer", lambda _: {"y": np.zeros((1, 2), np.float32)}),
    )

    async def ask() -> None:
        async with running(backend, MLFLOW_MODEL_NAME="toy,words") as service:
            for path, body, kind, encoding, packed in cases:
                content = gzip.compress(body) if packed else body
                headers = {"content-type": kind.encode(), "content-encoding": encoding.encode()}
                answer = await service.client.post(path, content=content, headers=headers)
                assert answer.status_code in {*KNOWN, 405}, answer.text
                if answer.status_code != 200:
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert answer.json()["status"] == answer.status_code
                    assert len(answer.content) < 4096
            assert (await service.predict()).status_code == 200

    finished(ask())


def asked(
    content: Any, headers: dict[str, str], path: str = PREDICT, **limits: Any
) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with running(**limits) as toy:
            return await toy.client.post(path, content=content, headers=headers)

    answer: httpx.Response = finished(ask())
    return answer


def test_gzip_is_read_by_every_endpoint() -> None:
    arrays = npz(x=np.ones((1, 2), np.float32))
    for body, kind in ((BODY, "application/json"), (arrays, "application/octet-stream")):
        for encoding in ("gzip", "x-gzip", "GZip"):
            headers = {"content-type": kind, "content-encoding": encoding}
            assert asked(gzip.compress(body), headers).status_code == 200
    for wrong in (BODY, b"", gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"x",
                  gzip.compress(BODY) * 2, zlib.compress(BODY), b"\x1f\x8b"):  # fmt: skip
        answer = asked(wrong, {**JSON, "content-encoding": "gzip"})
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:stlab:problem:malformed")


def test_an_unknown_encoding_is_refused_and_the_known_ones_are_named() -> None:
    for encoding in ("br", "deflate", "zstd", "gzip, gzip", "x"):
        answer = asked(BODY, {**JSON, "content-encoding": encoding})
        assert answer.status_code == 415
        assert answer.json()["type"] == "urn:stlab:problem:unknown-encoding"
        assert "gzip" in answer.headers["accept-encoding"]


def test_a_body_counts_as_it_is_unpacked() -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    spaces = b" " * (1000 - len(BODY))
    assert asked(gzip.compress(BODY + spaces), headers, max_body_bytes=1000).status_code == 200
    answer = asked(gzip.compress(BODY + spaces + b" "), headers, max_body_bytes=1000)
    assert answer.status_code == 413
    bomb = gzip.compress(b" " * (64 * 1024 * 1024), 9)
    assert asked(bomb, headers).status_code == 413


async def _slowly(toy: Running, received: int, **headers: str) -> Any:
    """Send a part of a body and nothing more; the answer's status and headers."""
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": BODY[:received], "more_body": True}])

    async def receive() -> Any:
        for part in parts:
            return part
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": PREDICT, "raw_path": PREDICT.encode(), "query_string": b"", "scheme": "http",
        "server": ("test", 80), "client": ("test", 1), "root_path": "",
        "headers": [(n.encode(), v.encode())
                    for n, v in {"host": "test", **JSON, **headers}.items()],
    }  # fmt: skip
    await toy.app(scope, receive, send)
    return sent


def test_a_body_that_is_late_is_408_and_takes_no_place() -> None:
    async def ask() -> None:
        async with running(max_concurrency=1) as toy:
            late = [
                asyncio.ensure_future(_slowly(toy, 1, **{"x-timeout-seconds": "0.3"}))
                for _ in range(5)
            ]
            await asyncio.sleep(0)
            for _ in range(3):
                assert (await toy.predict()).status_code == 200
            for sent in await asyncio.gather(*late):
                assert sent[0]["status"] == 408
                assert (b"connection", b"close") in sent[0]["headers"]
                assert json.loads(sent[1]["body"])["type"] == "urn:stlab:problem:request-timeout"
            assert len(toy.backend.opened[0].asked) == 3

    finished(ask())


def test_large_bodies_share_what_they_may_hold() -> None:
    async def ask() -> None:
        async with running(max_buffered_bytes=100_000) as toy:
            large = {"content": BODY + b" " * 150_000, "headers": JSON}
            for _ in range(3):  # what one held is free again
                assert (await toy.client.post(PREDICT, **large)).status_code == 200
            large["content"] += b" " * 100_000
            answer = await toy.client.post(PREDICT, **large)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await toy.predict()).status_code == 200

    finished(ask())


def test_a_large_answer_counts_too() -> None:
    def make(model: Any) -> None:
        model.answer = lambda _: {"y": np.ones((1000, 100), np.float32)}

    async def ask() -> None:
        for limit, status in ((400_000, 200), (100_000, 503)):
            async with running(FakeBackend(make=make), max_buffered_bytes=limit) as toy:
                for _ in range(3):
                    answer = await toy.predict()
                    assert answer.status_code == status
                    assert status == 503 or np.shape(answer.json()["outputs"]["y"]) == (1000, 100)

    finished(ask())


class LoanRequest(BaseModel):
    amount: float
    history: dict[str, float] = {}


class LoanRisk(BaseModel):
    model: ModelInfo
    risk: float


class Risk:
    """Judge a loan: a plug-in that knows nothing of numbers that are not finite."""

    model, path = "toy", "/v1/loans/risk"
    request, response = LoanRequest, LoanRisk

    def to_tensors(self, request: LoanRequest, spec: Any) -> dict[str, Any]:
        return {"x": np.array([[request.amount, 1]], np.float32)}

    def to_response(self, request: LoanRequest, outputs: Any, model: ModelInfo) -> LoanRisk:
        return LoanRisk(model=model, risk=float(outputs["y"][0, 0]))


def test_a_business_endpoint_has_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stlab_api.app.load_endpoint_plugins", lambda _: [Risk()])

    def judged(body: bytes, **limits: Any) -> httpx.Response:
        return asked(body, JSON, Risk.path, **limits)

    assert judged(b'{"amount": 2}').json()["risk"] == 4
    for word in ("1e400", "-1e400", "NaN", "-Infinity", "1" + "0" * 400):
        for body, place in (
            ('{"amount": %s}', "/amount"),
            ('{"amount": 1, "history": {"a": 1e3, "e9999": %s}}', "/history/e9999"),
        ):
            answer = judged((body % word).encode())
            assert answer.status_code == 422, (word, answer.text)
            assert answer.json()["errors"][0]["pointer"] == place
    fine = b'{"amount": 1e30, "history": {"NaN": 1, "1e999": 2}}'
    assert judged(fine).status_code == 200
    wrong = b'{"amount": 1, "history": {%s}}' % b",".join(b'"%d":""' % n for n in range(5000))
    answer = judged(wrong)
    assert answer.status_code == 422
    assert "5000 errors" in answer.json()["detail"]
    assert len(answer.content) < 1000
    assert judged(wrong, max_plugin_bytes=len(wrong)).status_code == 422
    assert judged(wrong, max_plugin_bytes=len(wrong) - 1).status_code == 413
    long = b'{"amount": "%s", "%s": 1}' % (b"a" * 100_000, b"b" * 100_000)
    assert len(judged(long).content) < 4096


def test_large_answers_are_written_as_small_ones() -> None:
    for shape in ((0,), (), (70_000,), (3, 30_000), (30_000, 3), (2, 2, 20_000)):
        for dtype in ("float32", "float16", "int64", "bool", "object"):
            from stlab_api.schemas import to_json

            flat = np.arange(int(np.prod(shape))) % 7
            values = (
                np.array([b"%d\x00\xff" % n for n in flat], object) if dtype == "object" else flat
            )
            array = values.astype(dtype).reshape(shape)
            if dtype.startswith("float") and array.size:
                array.ravel()[0] = np.nan
            spec = model_spec(outputs=(TensorSpec("y", "FP32", (-1,)),))
            found = json.loads(to_json(spec, {"y": array}, {"name": "toy"}))
            if dtype == "object":
                expected = np.vectorize(lambda v: v.decode(errors="replace"), [object])(
                    array
                ).tolist()
            else:
                expected = array.tolist()
            assert json.dumps(found["outputs"]["y"]) == json.dumps(expected).replace("NaN", "null")
