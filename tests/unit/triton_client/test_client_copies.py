"""Clients and models that are pickled and copied, and what says that it cannot be."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
from typing import Any

import grpc
import numpy as np
import pytest

from triton_client import AsyncTritonClient, TritonClient, errors

X = np.arange(4, dtype=np.float32).reshape(2, 2)


class Counting:
    """Hooks that cannot be pickled nor copied, as those that hold a lock."""

    def __init__(self) -> None:
        self.ended = 0

    def __reduce__(self) -> Any:
        raise TypeError("no copies")

    def started(self, call: Any) -> None: ...

    def finished(self, call: Any, seconds: float, error: Any) -> None:
        self.ended += 1


def test_a_used_client_and_its_models(server: Any, connect: Any) -> None:
    client = connect(server.url, timeout=7, headers={"x-tenant": "north"})
    model = connect.run(client.model("m"))
    connect.run(model.infer({"x": X}))
    for remade in (
        pickle.loads(pickle.dumps((client, model))),
        copy.deepcopy((client, model)),
    ):
        seen = len(server.seen)
        again, twin = remade
        assert type(again) is type(client)
        assert (again.url, again.timeout) == (client.url, 7)
        assert (twin.spec, twin.config) == (model.spec, model.config)
        assert server.seen[seen:] == [], "nothing is asked again"
        np.testing.assert_array_equal(connect.run(twin.infer({"x": X}))["y"], X)
        assert server.headers[-1]["x-tenant"] == "north"
        connect.run(again.close())
        with pytest.raises(RuntimeError, match="closed"):
            connect.run(twin.infer({"x": X}))
        # The one that was copied is another one.
        connect.run(model.infer({"x": X}))
    connect.run(pickle.loads(pickle.dumps(model)).infer({"x": X}))


def test_a_model_without_config(server: Any, connect: Any) -> None:
    server.calls["ModelConfig"] = lambda _, context: context.abort(
        grpc.StatusCode.PERMISSION_DENIED, "no"
    )
    model = pickle.loads(pickle.dumps(connect.run(connect(server.url).model("m"))))
    with pytest.raises(errors.PermissionDenied, match="no"):
        _ = model.config
    connect.run(model.infer({"x": X}))


def _infer(model: Any) -> Any:
    return model.infer({"x": X})["y"]


def test_in_another_process(server: Any) -> None:
    with TritonClient(server.url) as client:
        model = client.model("m")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            np.testing.assert_array_equal(pool.apply(_infer, (model,)), X)


def test_hooks_are_shared_by_copies_and_not_pickled(server: Any, connect: Any) -> None:
    hooks = Counting()
    client = connect(server.url, event_hooks=hooks)
    again = copy.deepcopy(client)
    connect.run(again.live())
    assert hooks.ended == 1
    connect.run(again.close())
    with pytest.raises(TypeError, match="no copies"):
        pickle.dumps(client)


def test_what_cannot_be_pickled_says_so(server: Any, connect: Any) -> None:
    client = connect(server.url, credentials=grpc.ssl_channel_credentials())
    with pytest.raises(TypeError, match="credentials= cannot be pickled; make one in each process"):
        pickle.dumps(client)
    model = connect.run(connect(server.url).model("m"))
    for single in (model.sequence(7), connect(server.url).shared_memory(64)):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="belongs to its process and its server"):
                attempt(single)


def test_errors_are_pickled_whole() -> None:
    error = errors.InvalidInput("no", server="a:1", model="m", version="2")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.InvalidInput
    assert (str(again), again.server, again.version) == (str(error), "a:1", "2")


def test_a_client_that_was_never_used(server: Any) -> None:
    with pickle.loads(pickle.dumps(TritonClient(server.url))) as client:
        assert client.live()

    async def asks() -> None:
        async with pickle.loads(pickle.dumps(AsyncTritonClient(server.url))) as client:
            assert await client.live()

    asyncio.run(asks())
