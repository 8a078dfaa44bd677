"""Headers, credentials, trace context and hooks of both clients."""

from __future__ import annotations

import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from triton_client import CallInfo, TritonClient, errors
from triton_client._channel import channel_settings
from triton_client._headers import Headers, trace_headers

X = np.ones((1, 2), np.float32)
SECRET = "s3cr3t"
KINDS: dict[str, Any] = {"tls": False, "credentials": None, "headers": None, "options": None}


def test_headers_token_and_restricted_protocols(server: Any, connect: Any) -> None:
    client = connect(
        server.url,
        headers={"X-Team": "a", "x-raw-bin": b"\x00\xff"},
        token="t",
        protocol_keys={"admin": SECRET},
    )
    connect.run(client.metadata())
    (sent,) = server.headers
    assert sent["x-team"] == "a"
    assert sent["x-raw-bin"] == b"\x00\xff"
    assert sent["authorization"] == "Bearer t"
    assert sent["triton-grpc-protocol-admin"] == SECRET


def test_functions_are_asked_before_every_attempt(server: Any, proxy: Any, connect: Any) -> None:
    def cut_once(request: Any, context: Any) -> Any:
        if server.seen.count("ServerMetadata") == 1:
            proxy.cut()
        context.abort(grpc.StatusCode.INTERNAL, "seen")

    server.calls["ServerMetadata"] = cut_once
    numbers = iter(range(100))
    client = connect(
        proxy.url,
        headers=lambda: {"x-number": str(next(numbers))},
        token=lambda: f"token-{next(numbers)}",
    )
    with pytest.raises(errors.ServerError, match="seen"):
        connect.run(client.metadata())
    assert [sent["x-number"] for sent in server.headers] == ["0", "2"]
    assert [sent["authorization"] for sent in server.headers] == [
        "Bearer token-1",
        "Bearer token-3",
    ]


def test_headers_of_a_call_are_of_that_call_alone(server: Any, connect: Any) -> None:
    """Also where the requests are alike, of which the client keeps what does not change."""
    model = connect.run(connect(server.url, headers={"x-tenant": "all"}).model("m"))
    tenants = ["north", "north", "north", None, "south", None]
    for tenant in tenants:
        headers = {"x-tenant": tenant, "x-once": tenant} if tenant else None
        connect.run(model.infer({"x": X}, headers=headers))
    sent = server.headers[-len(tenants) :]
    assert [headers["x-tenant"] for headers in sent] == [tenant or "all" for tenant in tenants]
    assert [headers.get("x-once") for headers in sent] == tenants


@pytest.mark.parametrize("argument", ["headers", "token"])
def test_what_a_function_raises_comes_through(server: Any, connect: Any, argument: str) -> None:
    failure = LookupError("no token to be had")

    def fail() -> Any:
        raise failure

    with pytest.raises(LookupError) as caught:
        connect.run(connect(server.url, **{argument: fail}).metadata())
    assert caught.value is failure
    assert server.seen == []


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({"x": f"{SECRET}\n"}, "line break"),
        ({"x": f"ü{SECRET}"}, "ASCII"),
        ({"x": SECRET.encode() + b"\x00"}, "ASCII"),
        ({"x y": SECRET}, "not a header's name"),
        ({"x-bin": SECRET}, "takes bytes"),
        ({"x": [SECRET]}, "not list"),
    ],
)
def test_bad_headers_are_refused_without_their_value(headers: Any, hint: str) -> None:
    for make in (lambda: Headers(headers), lambda: Headers(lambda: headers).current()):
        with pytest.raises(ValueError, match=hint) as caught:
            make()
        assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="line break") as caught:
        Headers(token=lambda: f"{SECRET}\n").current()
    assert SECRET not in str(caught.value)


def test_no_secret_is_shown(server: Any) -> None:
    secrets: dict[str, Any] = {
        "headers": {"x": SECRET},
        "token": SECRET,
        "protocol_keys": {"admin": SECRET},
    }
    with TritonClient(server.url, **secrets) as client:
        assert SECRET not in repr(client)
    settings = channel_settings("h:1", **{**KINDS, **secrets})
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.headers)


def test_fixed_headers_are_made_once() -> None:
    headers = Headers({"x": "1"}, "t", {"k": "s"})
    assert headers.current() is headers.current()
    assert Headers().current() is None


def test_calls_of_a_sequence_go_to_one_server() -> None:
    settings = channel_settings("h:1", **KINDS)
    options = dict(settings.pinned().options)
    assert "pick_first" in options["grpc.service_config"]
    assert "round_robin" in dict(settings.options)["grpc.service_config"]
    assert len(options) == len(settings.options)


@pytest.mark.parametrize("compression", ["gzip", "deflate", None])
def test_compression(server: Any, proxy: Any, connect: Any, compression: str | None) -> None:
    model = connect.run(connect(proxy.url, compression=compression).model("m"))
    x = np.zeros((4, 2), np.float32)
    answer = connect.run(model.infer({"x": x}, parameters={"note": "a" * 100_000}))
    np.testing.assert_array_equal(answer["y"], x)
    (request,) = server.requests
    assert len(request.parameters["note"].string_param) == 100_000
    assert (proxy.carried < 20_000) == (compression is not None)
    with pytest.raises(ValueError, match="gzip, deflate or None"):
        connect(server.url, compression="lzma")


def span(*, sampled: bool = True, state: TraceState | None = None) -> Any:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    context = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=flags, trace_state=state)
    return trace.use_span(NonRecordingSpan(context))


PARENT = f"00-{0xAB:032x}-{0xCD:016x}-01"


def test_a_sampled_span_goes_with_the_call(server: Any) -> None:
    with TritonClient(server.url, headers={"x": "1"}) as client:
        with span(state=TraceState([("vendor", "v")])):
            client.metadata()
        with span():
            client.metadata()
        with span(sampled=False):
            client.metadata()
        client.metadata()
    first, second, third, fourth = server.headers
    assert (first["traceparent"], first["tracestate"], first["x"]) == (PARENT, "vendor=v", "1")
    assert second["traceparent"] == PARENT
    assert "tracestate" not in second
    assert "traceparent" not in third
    assert "traceparent" not in fourth


def test_the_callers_own_trace_wins() -> None:
    with span():
        assert Headers({"traceparent": "mine"}).current() == (("traceparent", "mine"),)


def test_nothing_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    with span():
        monkeypatch.setitem(sys.modules, "opentelemetry.trace", SimpleNamespace())
        assert trace_headers() == ()
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        assert trace_headers() == ()


class Seen:
    def __init__(self) -> None:
        self.started_calls: list[CallInfo] = []
        self.ended: list[tuple[CallInfo, float, errors.TritonClientError | None]] = []

    def started(self, call: CallInfo) -> None:
        self.started_calls.append(call)

    def finished(
        self, call: CallInfo, seconds: float, error: errors.TritonClientError | None
    ) -> None:
        self.ended.append((call, seconds, error))


def test_hooks_see_every_call_once(server: Any, proxy: Any, connect: Any) -> None:
    echo, seen = server.infer, Seen()

    def cut_once(request: Any, context: Any) -> Any:
        if len(server.requests) == 1:
            proxy.cut()
        time.sleep(0.02)
        return echo(request, context)

    server.infer = cut_once
    model = connect.run(connect(proxy.url, event_hooks=seen).model("m", 3))
    connect.run(model.infer({"x": X}))
    assert len(server.requests) == 2
    assert [call.method for call in seen.started_calls] == [
        "ModelMetadata",
        "ModelConfig",
        "ModelInfer",
    ]
    call, seconds, error = seen.ended[-1]
    assert call is seen.started_calls[-1]
    assert (call.model, call.version, call.server) == ("m", "3", proxy.url)
    assert call.request_bytes == server.requests[-1].ByteSize()
    assert 0.02 <= seconds < 10
    assert error is None
    server.infer = lambda _, context: context.abort(grpc.StatusCode.INTERNAL, "no")
    with pytest.raises(errors.ServerError) as caught:
        connect.run(model.infer({"x": X}))
    assert seen.ended[-1][2] is caught.value


def test_a_hook_sees_the_end_of_a_call_that_was_not_sent(server: Any, connect: Any) -> None:
    def fail() -> Any:
        raise LookupError

    seen = Seen()
    with pytest.raises(LookupError):
        connect.run(connect(server.url, event_hooks=seen, token=fail).metadata())
    ((_, _, error),) = seen.ended
    assert str(error) == f"{server.url}: ended by LookupError"


def test_a_hook_that_raises_breaks_nothing(
    server: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("in a hook")

    client = connect(server.url, event_hooks=SimpleNamespace(started=fail, finished=fail))
    with caplog.at_level(logging.WARNING, "triton_client"):
        connect.run(client.metadata())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ServerMetadata" in record.message
