"""What a response says besides its outputs, headers of one call, classes, and settings."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client import ModelConfig, Result, errors

X = np.arange(4, dtype=np.float32).reshape(2, 2)


def versioned(request: Any, context: Any) -> Any:
    response = service_pb2.ModelInferResponse(model_name="m", model_version="7", id=request.id)
    response.parameters["tokens"].int64_param = len(request.inputs)
    response.parameters["cached"].bool_param = False
    response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


def test_a_result_is_a_dictionary_with_the_rest_of_the_response(server: Any, connect: Any) -> None:
    server.infer = versioned
    model = connect.run(connect(server.url).model("m"))
    # The third one is read by the layout of those before; five rows are two requests.
    for rows in (2, 2, 2, 5):
        x = np.full((rows, 2), rows, np.float32)
        for wanted in (None, ["y"]):
            result = connect.run(model.infer({"x": x}, outputs=wanted, request_id="r"))
            assert (result.version, result.id) == ("7", "r")
            assert result.parameters == {"tokens": 1, "cached": False}
            assert isinstance(result, Result)
            assert isinstance(result, dict)
            assert {**result} == dict(result) == result
            for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
                assert (again.version, list(again)) == ("7", ["y"])
                np.testing.assert_array_equal(again["y"], x)
    (streamed, *_) = connect.run(model.stream({"x": X}))
    assert (streamed.version, streamed.parameters) == ("", {})


def test_headers_of_one_call(server: Any, connect: Any) -> None:
    client = connect(server.url, headers={"x-tenant": "north", "x-kept": "k"})
    model = connect.run(client.model("m"))

    def sent() -> tuple[Any, ...]:
        return tuple(server.headers[-1].get(name) for name in ("x-tenant", "x-kept"))

    for _ in range(3):  # also where the request is like an earlier one
        connect.run(model.infer({"x": X}, headers={"X-Tenant": "south"}))
        assert sent() == ("south", "k")
        connect.run(model.infer({"x": X}))
        assert sent() == ("north", "k")
    for run in (
        lambda headers: model.infer_many([{"x": X}], headers=headers),
        lambda headers: model.stream({"x": X}, headers=headers),
        lambda headers: model.sequence(7, headers=headers).infer({"x": X}),
    ):
        connect.run(run({"x-tenant": "west"}))
        assert sent() == ("west", "k")
    with pytest.raises(ValueError, match="takes text"):
        connect.run(model.infer({"x": X}, headers={"x": 1}))


def test_classes_are_requested_of_every_output(server: Any, connect: Any) -> None:
    def classes(request: Any, context: Any) -> Any:
        (output,) = request.outputs
        count = output.parameters["classification"].int64_param
        rows = request.inputs[0].shape[0]
        response = service_pb2.ModelInferResponse(model_name="m")
        response.outputs.add(name=output.name, datatype="BYTES", shape=[rows, count])
        response.raw_output_contents.append((b"\5\0\0\0" + b"0.5:1") * rows * count)
        return response

    server.infer = classes
    model = connect.run(connect(server.url).model("m"))
    assert connect.run(model.infer({"x": X}, class_count=1))["y"].tolist() == [[b"0.5:1"]] * 2
    many = np.zeros((9, 2), np.float32)  # three requests
    assert connect.run(model.infer({"x": many}, class_count=2))["y"].shape == (9, 2)
    for wrong in ({"class_count": -1}, {"class_count": 1, "outputs": {"y": None}}):
        with pytest.raises(errors.InvalidInput, match="class_count"):
            connect.run(model.infer({"x": X}, **wrong))


def test_settings_are_sent_and_returned(server: Any, connect: Any) -> None:
    seen: list[Any] = []

    def trace(request: Any, context: Any) -> Any:
        seen.append(request)
        response = service_pb2.TraceSettingResponse()
        response.settings["trace_level"].value.extend(["TIMESTAMPS", "TENSORS"])
        response.settings["trace_rate"].value.append("100")
        return response

    def log(request: Any, context: Any) -> Any:
        seen.append(request)
        response = service_pb2.LogSettingsResponse()
        response.settings["log_info"].bool_param = True
        response.settings["log_verbose_level"].uint32_param = 2
        response.settings["log_format"].string_param = "default"
        return response

    server.calls |= {"TraceSetting": trace, "LogSettings": log}
    client = connect(server.url)
    changes = {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": 100, "log_frequency": None}
    found = connect.run(client.update_trace_settings(changes, "m"))
    assert found == {"trace_level": ("TIMESTAMPS", "TENSORS"), "trace_rate": ("100",)}
    assert seen[-1].model_name == "m"
    assert {name: list(item.value) for name, item in seen[-1].settings.items()} == {
        "trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": ["100"], "log_frequency": [],
    }  # fmt: skip
    assert connect.run(client.trace_settings()) == found
    assert not seen[-1].settings
    found = connect.run(client.update_log_settings({"log_info": True, "log_verbose_level": 2}))
    assert found == {"log_info": True, "log_verbose_level": 2, "log_format": "default"}
    assert seen[-1].settings["log_info"].WhichOneof("parameter_choice") == "bool_param"
    assert connect.run(client.log_settings()) == found
    with pytest.raises(errors.InvalidInput, match="log_verbose_level"):
        connect.run(client.update_log_settings({"log_verbose_level": -1}))


CONFIG = {
    "name": "m", "backend": "onnxruntime", "max_batch_size": 4,
    "input": [{"name": "x", "data_type": "TYPE_STRING", "dims": [-1], "optional": True}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "l.txt"}],
    "instance_group": [{"kind": "KIND_GPU", "count": 2, "gpus": [0]}],
    "dynamic_batching": {"max_queue_delay_microseconds": 200},
    "version_policy": {"specific": {"versions": [3, 7]}},
    "parameters": {"threads": {"string_value": "1"}},
}  # fmt: skip


def test_config_and_statistics_are_typed(server: Any, connect: Any) -> None:
    message = model_config_pb2.ModelConfig()
    server.calls["ModelConfig"] = lambda *_: service_pb2.ModelConfigResponse(config=message)
    client = connect(server.url)
    bare = connect.run(client.model("m")).config
    assert (bare.dynamic_batching, bare.versions, bare.input) == (None, (), ())
    ParseDict(CONFIG, message)
    config = connect.run(client.model("m", 7)).config
    assert isinstance(config, ModelConfig)
    (x,), (y,), (group,) = config.input, config.output, config.instance_group
    assert (x.name, x.datatype, x.dims, x.optional) == ("x", "BYTES", (-1,), True)
    assert (y.datatype, y.dims, y.label_filename) == ("FP32", (2,), "l.txt")
    assert (group.kind, group.count, group.gpus) == ("KIND_GPU", 2, (0,))
    assert config.dynamic_batching is not None
    assert config.dynamic_batching.max_queue_delay_microseconds == 200
    assert (config.versions, dict(config.parameters)) == ((3, 7), {"threads": "1"})
    assert config.raw == message
    assert list(config.version_policy.specific.versions) == [3, 7]  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = config.no_such_field  # type: ignore[attr-defined]

    def statistics(request: Any, context: Any) -> Any:
        response = service_pb2.ModelStatisticsResponse()
        entry = response.model_stats.add(name="m", version="7", inference_count=5)
        entry.inference_stats.queue.ns = 9
        entry.batch_stats.add(batch_size=4).compute_infer.count = 3
        entry.memory_usage.add(type="CPU", byte_size=1)
        return response

    server.calls["ModelStatistics"] = statistics
    (found,) = connect.run(client.statistics("m"))
    assert (found.name, found.version, found.inference_count) == ("m", "7", 5)
    assert found.inference_stats.queue.ns == 9
    assert [(b.batch_size, b.compute_infer.count) for b in found.batch_stats] == [(4, 3)]
    assert found.raw.memory_usage[0].byte_size == 1


def test_former_names_still_work(server: Any, connect: Any) -> None:
    with pytest.warns(DeprecationWarning, match="restricted= is protocol_keys= now"):
        client = connect(server.url, restricted={"admin": "s"})
    connect.run(client.live())
    assert server.headers[-1]["triton-grpc-protocol-admin"] == "s"
    connect.run(pickle.loads(pickle.dumps(client)).live())
    assert server.headers[-1]["triton-grpc-protocol-admin"] == "s"
