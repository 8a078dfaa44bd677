"""A real S3 API on loopback, and processes that work on it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

from exporter.repository import ObjectRepository, StoreUrl
from exporter.repository.object_store import ObjectStore

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "much-guarded-secret",
    "AWS_SESSION_TOKEN": "much-guarded-token",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET = "bucket"
WRITES = ("create", "replace", "upload", "delete")

logging.getLogger("werkzeug").setLevel(logging.ERROR)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["s3fs", "aiobotocore.session", __name__])


class S3:
    """The server. Requests are answered one at a time, as a store decides conditional writes."""

    def __init__(self) -> None:
        application = DomainDispatcherApplication(create_backend_app)
        turn = threading.Lock()

        def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            with turn:
                if self.falls_silent is not None and self.falls_silent(environment):
                    self.is_silent = True
                if self.is_silent:
                    start("503 Service Unavailable", [("Content-Length", "0")])
                    return [b""]
                if self.refuses:
                    start("403 Forbidden", [("Content-Length", str(len(self.refuses)))])
                    return [self.refuses]
                return list(application(environment, start))

        self.falls_silent: Callable[[Mapping[str, Any]], bool] | None = None
        self.is_silent = False
        self.refuses = b""
        self._server = make_server(
            "127.0.0.1", 0, answer, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def settings(self) -> dict[str, str]:
        """What the environment of a command holds that works on it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    def url(self, prefix: str = "production/models") -> str:
        """A repository as Triton writes it, with the endpoint in it."""
        return f"s3://{self.endpoint}/{BUCKET}/{prefix}"

    def reset(self) -> None:
        self.falls_silent, self.is_silent, self.refuses = None, False, b""
        self._backend.reset()
        self._backend.create_bucket(BUCKET, "us-east-1")

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def objects(self) -> dict[str, bytes]:
        """Every object of the bucket."""
        keys = self._backend.buckets[BUCKET].keys
        return {name: keys[name].value for name in sorted(keys)}

    def put(self, name: str, content: bytes) -> None:
        """Write an object behind everybody's back."""
        self._backend.put_object(BUCKET, name, content)

    def delete(self, name: str) -> None:
        self._backend.delete_object(BUCKET, name)

    def age(self, name: str, seconds: float) -> None:
        """Let an object have been written earlier."""
        self._backend.buckets[BUCKET].keys[name].last_modified -= timedelta(seconds=seconds)

    @property
    def _backend(self) -> Any:
        return s3_backends["123456789012"]["aws"]


@contextmanager
def serving() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.stop()


def open_at(url: str, lease_seconds: float = 60.0) -> ObjectRepository:
    return ObjectRepository(StoreUrl.parse(url), lease_seconds)


@cache
def shared_at(url: str) -> ObjectRepository:
    """A repository that keeps its connection from test to test."""
    return open_at(url)


def store_at(url: str) -> ObjectStore:
    return ObjectStore(StoreUrl.parse(url))


def process(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a process that has the credentials."""
    started = CONTEXT.Process(target=_with_credentials, args=(target, *arguments), daemon=True)
    started.start()
    return started


def _with_credentials(target: Callable[..., None], *arguments: Any) -> None:
    os.environ.update(CREDENTIALS)
    target(*arguments)


def set_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
