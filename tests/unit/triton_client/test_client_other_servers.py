"""Servers of the same protocol that are not Triton, or are set up in another way."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from tests.unit.triton_client.fake_triton import FakeTriton
from triton_client import errors

X = np.arange(4, dtype=np.float32).reshape(2, 2)


def unimplemented(_: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")


def named(*versions: str) -> Any:
    metadata = service_pb2.ModelMetadataResponse(name="m", versions=versions, platform="p")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
    metadata.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
    return lambda *_: metadata


def test_versions_that_are_no_numbers(server: Any, connect: Any) -> None:
    for versions, newest in (
        (("2", "10"), "10"),
        (("v1.0.3",), "v1.0.3"),
        (("blue", "green"), ""),
        (("1", "green"), ""),
        ((), ""),
        (("²",), "²"),
    ):
        server.calls["ModelMetadata"] = named(*versions)
        model = connect.run(connect(server.url).model("m"))
        assert model.spec.version == newest
        np.testing.assert_array_equal(connect.run(model.infer({"x": X}))["y"], X)
    model = connect.run(connect(server.url).model("m", "green"))
    connect.run(model.infer({"x": X}))
    assert server.requests[-1].model_version == "green"


def test_a_server_without_model_configs(server: Any, connect: Any) -> None:
    server.calls["ModelConfig"] = unimplemented
    model = connect.run(connect(server.url).model("m"))
    assert (model.spec.max_batch_size, model.spec.inputs[0].shape) == (0, (-1, 2))
    rows = np.ones((9, 2), np.float32)
    np.testing.assert_array_equal(connect.run(model.infer({"x": rows}))["y"], rows)
    assert len(server.requests) == 1, "it counts as one that does not batch, so nothing is cut"
    with pytest.raises(errors.ServerError, match="not implemented") as caught:
        _ = model.config
    assert caught.value.model == "m"


def test_what_else_a_server_does_not_implement(server: Any, connect: Any) -> None:
    for method in ("RepositoryIndex", "ModelStatistics", "SystemSharedMemoryStatus"):
        server.calls[method] = unimplemented
    client = connect(server.url)
    calls = (client.models, client.statistics, client.shared_memory_status)
    for call in calls:
        with pytest.raises(errors.ServerError, match="not implemented"):
            connect.run(call())


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_server_that_compresses_unasked(connect: Any, compression: Any) -> None:
    server = FakeTriton(compression=compression)
    try:
        model = connect.run(connect(server.url).model("m"))
        rows = np.zeros((4000, 2), np.float32)
        np.testing.assert_array_equal(connect.run(model.infer({"x": rows}))["y"], rows)
        answers = connect.run(model.stream({"x": X}))
        np.testing.assert_array_equal(np.concatenate([answer["y"] for answer in answers]), X)
    finally:
        server.stop()


def test_an_answer_in_typed_fields(server: Any, connect: Any) -> None:
    """As KServe's own servers answer, where Triton sends raw bytes."""

    def typed(request: Any, _: Any) -> Any:
        answer = service_pb2.ModelInferResponse(model_name="m")
        for name, datatype, field, values in (
            ("y", "FP32", "fp32_contents", [1.5, 2.5]),
            ("d", "FP64", "fp64_contents", [1.5, 2.5]),
            ("i", "INT64", "int64_contents", [-1, 2**40]),
            ("s", "INT8", "int_contents", [-1, 2]),
            ("u", "UINT64", "uint64_contents", [1, 2**63]),
            ("k", "UINT8", "uint_contents", [1, 255]),
            ("b", "BOOL", "bool_contents", [True, False]),
            ("t", "BYTES", "bytes_contents", [b"a\0", b""]),
        ):
            output = answer.outputs.add(name=name, datatype=datatype, shape=[2])
            getattr(output.contents, field).extend(values)
        return answer

    server.infer = typed
    found = connect.infer(server.url, {"x": X[:, :2]})
    assert found["y"].dtype == np.float32
    assert {name: array.tolist() for name, array in found.items()} == {
        "y": [1.5, 2.5], "d": [1.5, 2.5], "i": [-1, 2**40], "s": [-1, 2], "u": [1, 2**63],
        "k": [1, 255], "b": [True, False], "t": [b"a\0", b""],
    }  # fmt: skip


def test_typed_fields_that_make_no_sense(server: Any, connect: Any) -> None:
    def typed(request: Any, _: Any) -> Any:
        answer = service_pb2.ModelInferResponse(model_name="m")
        output = answer.outputs.add(name="y", datatype="FP32", shape=[3])
        output.contents.fp32_contents.extend([1.0])
        return answer

    server.infer = typed
    with pytest.raises(errors.ServerError):
        connect.infer(server.url, {"x": X})


CORRELATION = model_config_pb2.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID


def stateful(datatype: int) -> Any:
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=4)
    control = config.sequence_batching.control_input.add(name="ID").control.add(kind=CORRELATION)
    control.data_type = datatype
    return lambda *_: service_pb2.ModelConfigResponse(config=config)


def test_identifiers_of_sequences_are_of_the_models_type(server: Any, connect: Any) -> None:
    text = ("text", "7")
    for datatype, allowed, refused in (
        (model_config_pb2.TYPE_UINT64, (1, 2**63 - 1), (*text, 0, 2**63)),
        (model_config_pb2.TYPE_INT64, (1, 2**63 - 1), (*text, -1)),
        (model_config_pb2.TYPE_UINT32, (1, 2**32 - 1), (*text, 2**32)),
        (model_config_pb2.TYPE_INT32, (1, 2**31 - 1), (*text, 2**31, True)),
        (model_config_pb2.TYPE_STRING, text, (1, 2**31, "")),
    ):
        server.calls["ModelConfig"] = stateful(datatype)
        model = connect.run(connect(server.url).model("m"))
        for identifier in allowed:
            assert model.sequence(identifier).id == identifier
        for identifier in refused:
            with pytest.raises(errors.InvalidInput, match="the id of a sequence") as caught:
                model.sequence(identifier)
            assert ("text" in str(caught.value)) == (datatype == model_config_pb2.TYPE_STRING) or (
                isinstance(identifier, str)
            )
        drawn = {model.sequence().id for _ in range(50)}
        assert len(drawn) == 50
        assert {type(identifier) for identifier in drawn} == {type(allowed[0])}
        connect.run(model.sequence().infer({"x": X}, end=True))
