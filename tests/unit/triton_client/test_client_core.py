"""Plans, failures, deadlines, retries and channel settings: what needs no server."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

import triton_client
from triton_client import errors
from triton_client._channel import TLS, channel_settings
from triton_client._deadline import Deadline
from triton_client._failures import Place, classify
from triton_client._parameters import RequestOptions
from triton_client._plan import RequestBuilder, joined
from triton_client._retry import Attempts, Retries
from triton_client._shared_memory import ShmRegistry
from triton_client.types import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ModelSpec(
    "m", "1", "", 4, (TensorSpec("x", "INT32", (-1, 2)),), (TensorSpec("y", "INT32", (-1, 2)),)
)
DEFAULTS = RequestOptions(timeout=60.0)


def building(spec: ModelSpec, version: str = "") -> RequestBuilder:
    return RequestBuilder(Place("s", "m", version), spec, ShmRegistry())


def echo(request: bytes) -> bytes:
    parsed = service_pb2.ModelInferRequest.FromString(request)
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="y", datatype="INT32", shape=parsed.inputs[0].shape)
    response.raw_output_contents.extend(parsed.raw_input_contents)
    return bytes(response.SerializeToString())


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 13])
def test_rows_are_split_and_joined_in_order(rows: int) -> None:
    x = np.arange(rows * 2, dtype=np.int32).reshape(rows, 2)
    builder = building(SPEC)
    plan = builder.plan({"x": x}, DEFAULTS)
    assert plan.parts == math.ceil(rows / 4)
    answers = [call.read(echo(call.request)) for call in plan.calls]
    assert max(len(part["y"]) for part in answers) <= 4
    np.testing.assert_array_equal(joined(plan, answers)["y"], x)


def test_a_model_that_does_not_batch_is_never_split() -> None:
    spec = ModelSpec("m", "1", "", 0, SPEC.inputs, SPEC.outputs)
    x = np.zeros((1000, 2), np.int32)
    assert building(spec).plan({"x": x}, DEFAULTS).parts == 1


def test_a_part_with_other_rows_is_refused() -> None:
    builder = building(SPEC)
    first, second = builder.plan({"x": np.zeros((6, 2), np.int32)}, DEFAULTS).calls
    with pytest.raises(errors.ServerError, match="4 rows were sent"):
        first.read(echo(second.request))


def test_an_output_that_was_asked_for_and_did_not_come() -> None:
    builder = building(SPEC)
    plan = builder.plan({"x": np.zeros((1, 2), np.int32)}, RequestOptions(outputs=["y"]))
    (call,) = plan.calls
    with pytest.raises(errors.ServerError, match="no output 'y'"):
        call.read(b"")


def test_what_cannot_be_encoded_is_invalid_input() -> None:
    builder = building(SPEC, "3")
    x = np.zeros((1, 2), np.int32)
    for parameters in ({"timeout": 1}, {"p": None}, {"p": [1]}, {"p": 2**70}):
        options = RequestOptions(parameters=cast("Any", parameters))
        with pytest.raises(errors.InvalidInput) as caught:
            builder.plan({"x": x}, options)
        assert (caught.value.server, caught.value.model, caught.value.version) == ("s", "m", "3")


@pytest.mark.parametrize(
    ("code", "details", "kind", "transient"),
    [
        ("DEADLINE_EXCEEDED", "", errors.DeadlineExceeded, False),
        ("RESOURCE_EXHAUSTED", "quota", errors.Overloaded, False),
        ("RESOURCE_EXHAUSTED", "Sent message larger than max", errors.InvalidInput, False),
        ("INVALID_ARGUMENT", "shape", errors.InvalidInput, False),
        ("OUT_OF_RANGE", "", errors.InvalidInput, False),
        ("NOT_FOUND", "", errors.ModelNotFound, False),
        ("UNAUTHENTICATED", "", errors.PermissionDenied, False),
        ("PERMISSION_DENIED", "", errors.PermissionDenied, False),
        ("CANCELLED", "", errors.Unavailable, False),
        ("UNAVAILABLE", "failed to connect to all addresses", errors.Unavailable, True),
        ("UNAVAILABLE", "Stream removed (Socket closed)", errors.Unavailable, True),
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", errors.Overloaded, False),
        ("UNAVAILABLE", "Request timeout expired", errors.DeadlineExceeded, False),
        ("UNAVAILABLE", "Request for unknown model: 'm' version 1 is not at ready state",
         errors.NotReady, False),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'",
         errors.PermissionDenied, False),
        ("INTERNAL", "onnx runtime error", errors.ServerError, False),
        ("UNKNOWN", "", errors.ServerError, False),
        ("UNIMPLEMENTED", "", errors.ServerError, False),
        ("DATA_LOSS", "", errors.ServerError, False),
    ],
)  # fmt: skip
def test_status_codes(code: str, details: str, kind: type[Exception], transient: bool) -> None:
    failure = classify(code, details, Place("host:1", "m", "2"))
    assert type(failure.error) is kind
    assert failure.transient is transient
    assert str(failure.error).startswith("model 'm' version 2 at host:1: ")


def test_errors_travel_between_processes() -> None:
    error = errors.InvalidInput("no", server="s", model="m", version="1")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.model) == (errors.InvalidInput, str(error), "m")
    assert isinstance(back, ValueError)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, -math.inf])
def test_a_deadline_is_ahead(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Deadline(seconds)


def test_deadlines() -> None:
    assert Deadline(None).remaining() is None
    assert Deadline(math.inf).remaining() is None
    assert Deadline(None).within(3) == 3
    deadline = Deadline(0.01)
    assert 0 < (deadline.remaining() or 0) <= 0.01
    time.sleep(0.02)
    assert deadline.remaining() == 0
    assert 0 < deadline.within(3) < 0.01


def test_retries_have_a_number_a_budget_and_a_deadline() -> None:
    broken = classify("UNAVAILABLE", "Socket closed", Place(""))
    refused = classify("INTERNAL", "", Place(""))
    never = Deadline(None)
    retries = Retries(2)
    assert retries.pause(refused, Attempts(never)) is None
    assert retries.pause(broken, Attempts(never, repeatable=False)) is None
    attempts = Attempts(never)
    for given_up in (False, False, True):
        assert (retries.pause(broken, attempts) is None) is given_up
    given = sum(retries.pause(broken, Attempts(never)) is not None for _ in range(50))
    assert given == 8, "ten tokens, two were taken above"
    for _ in range(11):
        retries.succeeded()
    assert retries.pause(broken, Attempts(never)) is not None
    assert Retries(0).pause(broken, Attempts(never)) is None
    passed = Deadline(1e-9)
    assert Retries(2).pause(broken, Attempts(passed)) is None
    with pytest.raises(ValueError, match="negative"):
        Retries(-1)


@pytest.mark.parametrize(
    ("details", "unprocessed"),
    [
        ("Stream removed (GOAWAY received; Error code: 0; Debug Text: )", True),
        ("GOAWAY received; Error code: 11; Debug Text: too_many", True),
        ("Stream removed (RST_STREAM (Received RST_STREAM with error code 7))", True),
        ("Received RST_STREAM with error code 7", True),
        ("ipv4:127.0.0.1:8001: subchannel lost all connections", True),
        # These may have been processed, or are to blame.
        ("Stream removed (GOAWAY received; Error code: 2; Debug Text: )", False),
        ("Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: ))", False),
        ("Stream removed (recvmsg:Connection reset by peer (104))", False),
        ("Received RST_STREAM with error code 77", False),
        ("failed to connect to all addresses", False),
    ],
)
def test_what_the_peer_never_processed_costs_no_budget(details: str, unprocessed: bool) -> None:
    failure = classify("UNAVAILABLE", details, Place(""))
    assert failure.unprocessed is unprocessed
    retries, never = Retries(1), Deadline(None)
    attempts = Attempts(never, repeatable=False)
    given = [retries.pause(failure, attempts) for _ in range(50)]
    assert all((pause is not None) is unprocessed for pause in given)
    assert retries.pause(failure, Attempts(Deadline(1e-9))) is None
    broken = classify("UNAVAILABLE", "Socket closed", Place(""))
    assert retries.pause(broken, Attempts(never)) is not None, "nothing was taken for the others"


def settings(url: str, **changes: Any) -> Any:
    given: dict[str, Any] = {"tls": False, "credentials": None, "headers": None, "options": None}
    return channel_settings(url, **{**given, **changes})


@pytest.mark.parametrize(
    ("url", "target", "encrypted"),
    [
        ("localhost:8001", "dns:///localhost:8001", False),
        ("grpc://triton:8001", "dns:///triton:8001", False),
        ("grpcs://triton:8001", "dns:///triton:8001", True),
        ("[::1]:8001", "dns:///[::1]:8001", False),
        ("unix:/run/triton.sock", "unix:/run/triton.sock", False),
        ("dns:///triton:8001", "dns:///triton:8001", False),
    ],
)
def test_addresses(url: str, target: str, encrypted: bool) -> None:
    made = settings(url)
    assert made.target == target
    assert (made.credentials is not None) is encrypted


@pytest.mark.parametrize(
    "url",
    ["http://triton:8000", "https://triton", "", "triton:8001/v2", "triton", "grpc://triton",
     "triton:", "triton:grpc"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="8001"):
        settings(url)


def test_what_is_wrong_with_an_address_is_said() -> None:
    for url, problem in (
        ("host", "has no port"),
        ("host:http", "has no port"),
        ("host:\uff18", "has no port"),
        ("[::1]", "has no port"),
        (":8001", "has no host"),
        ("grpc://:8001", "has no host"),
        ("host:0", "ports are from 1 to 65535"),
        ("host:65536", "ports are from 1 to 65535"),
        ("host:99999999999999999999", "ports are from 1 to 65535"),
        ("http://host:8000", "is not a gRPC address"),
        ("::1:8001", "IPv6 address without brackets"),
        ("", "is not an address"),
        (" host:8001", "is not an address"),
        ("host:8001\n", "is not an address"),
        ("a:1,b:2", "is not an address"),
        ("grpc:host:8001", "is not an address"),
    ):
        with pytest.raises(ValueError, match=problem) as caught:
            settings(url)
        assert "write host:port, usually port 8001" in str(caught.value)
    for url in ("user:secret@host:8001", "http://user:secret@host:8000"):
        with pytest.raises(ValueError, match="has an account in it") as caught:
            settings(url)
        assert "secret" not in str(caught.value)
    for nothing in (None, 8001, b"host:8001"):
        with pytest.raises(TypeError, match="an address is text"):
            settings(nothing)  # type: ignore[arg-type]


def test_an_option_replaces_only_its_own_default() -> None:
    options = dict(settings("h:1", options={"grpc.keepalive_time_ms": 5, "grpc.x": 1}).options)
    assert options["grpc.keepalive_time_ms"] == 5
    assert options["grpc.x"] == 1
    assert options["grpc.max_receive_message_length"] == 512 << 20


def test_grpc_has_no_retry_policy_but_the_clients_own() -> None:
    for made in (settings("h:1"), settings("h:1").pinned()):
        options = dict(made.options)
        assert "retry" not in options["grpc.service_config"].lower()
        assert options["grpc.service_config_disable_resolution"] == 1, "from a name server"
        assert options.get("grpc.enable_retries", 1), "transparent retries are not policy"


def test_tls_and_headers(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(b"-----BEGIN CERTIFICATE-----")
    made = settings("h:1", tls=TLS(root, server_name="triton"), headers={"Authorization": "x"})
    assert made.credentials is not None
    assert dict(made.options)["grpc.ssl_target_name_override"] == "triton"
    assert made.headers.current() == (("authorization", "x"),)
    with pytest.raises(ValueError, match="not both"):
        settings("h:1", tls=True, credentials=grpc.ssl_channel_credentials())


def test_types_and_errors_import_no_grpc() -> None:
    code = (
        "import sys, triton_client.types, triton_client.errors, triton_client\n"
        "triton_client.TensorSpec, triton_client.InvalidInput\n"
        "heavy = {'grpc', 'tritonclient', 'google.protobuf', 'ml_dtypes', 'torch', 'mlflow'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_client_imports_nothing_else_of_this_project() -> None:
    code = (
        "import sys; from triton_client import TritonClient, AsyncTritonClient\n"
        "heavy = {'exporter', 'torch', 'mlflow', 'pandas'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in triton_client.__all__:
        assert getattr(triton_client, name).__name__ == name
    assert set(triton_client.__all__) <= set(dir(triton_client))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = triton_client.nonsense  # type: ignore[attr-defined]
