"""A model that somebody else has loaded with another interface: the client looks, and goes on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client import TritonClient, errors

X = np.arange(4, dtype=np.float32).reshape(2, 2)


class Interface:
    """Makes a fake Triton serve the model ``m`` with other inputs, as Triton checks them."""

    def __init__(
        self,
        server: Any,
        name: str = "x",
        datatype: str = "FP32",
        columns: int = 2,
        rows: int = 4,
        output: str = "y",
        version: str = "1",
    ) -> None:
        self.name, self.datatype, self.columns, self.rows = name, datatype, columns, rows
        self.output, self.version = output, version
        self.echo = server.infer
        server.calls["ModelMetadata"] = self.metadata
        server.calls["ModelConfig"] = lambda *_: service_pb2.ModelConfigResponse(
            config=model_config_pb2.ModelConfig(name="m", max_batch_size=self.rows)
        )
        server.infer, server.stream = self.infer, self.stream

    def metadata(self, *_: Any) -> Any:
        metadata = service_pb2.ModelMetadataResponse(name="m", versions=[self.version])
        metadata.inputs.add(name=self.name, datatype=self.datatype, shape=[-1, self.columns])
        metadata.outputs.add(name=self.output, datatype=self.datatype, shape=[-1, self.columns])
        return metadata

    def problem(self, request: Any) -> str:
        (tensor,) = request.inputs
        outputs = [output.name for output in request.outputs]
        if tensor.name != self.name:
            return f"unexpected inference input '{tensor.name}' for model 'm'"
        if tensor.datatype != self.datatype:
            return f"inference input 'x' data-type is '{tensor.datatype}', but model 'm' expects"
        if tensor.shape[1] != self.columns:
            return "[request id: <id_unknown>] unexpected shape for input 'x' for model 'm'"
        if tensor.shape[0] > self.rows:
            return f"inference request batch-size must be <= {self.rows} for 'm'"
        if outputs not in ([], [self.output]):
            return "unexpected inference output 'y' for model 'm'"
        return ""

    def infer(self, request: Any, context: Any) -> Any:
        if self.problem(request):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.problem(request))
        answer = service_pb2.ModelInferResponse(model_name="m")
        shape = request.inputs[0].shape
        answer.outputs.add(name=self.output, datatype=self.datatype, shape=shape)
        answer.raw_output_contents.append(request.raw_input_contents[0])
        return answer

    def stream(self, request: Any, context: Any) -> Any:
        if self.problem(request):
            yield service_pb2.ModelStreamInferResponse(error_message=self.problem(request))
            return
        answer = service_pb2.ModelStreamInferResponse()
        answer.infer_response.CopyFrom(self.infer(request, context))
        yield answer


CHANGES: tuple[tuple[dict[str, Any], np.ndarray[Any, Any], str, str], ...] = (
    # What changes, what is sent then, and the names of input and output.
    ({"name": "z"}, X, "z", "y"),
    ({"datatype": "FP64"}, X.astype(np.float64), "x", "y"),
    ({"columns": 3}, np.ones((2, 3), np.float32), "x", "y"),
    ({"output": "w"}, X, "x", "w"),
    # Refused by the server, as what the client knew allowed it.
    ({"rows": 1}, X, "x", "y"),
)


def test_what_the_new_interface_takes_is_served(server: Any, connect: Any) -> None:
    for change, value, name, output in CHANGES:
        Interface(server)
        model = connect.run(connect(server.url).model("m"))
        connect.run(model.infer({"x": X}))
        Interface(server, **change)
        before = server.seen.count("ModelMetadata")
        answer = connect.run(model.infer({name: value}, outputs=[output]))
        np.testing.assert_array_equal(answer[output], value)
        assert server.seen.count("ModelMetadata") == before + 1, change
        many = [{name: value}] * 3
        for answer in connect.run(model.infer_many(many, outputs=(o for o in [output]))):
            np.testing.assert_array_equal(answer[output], value)
        assert server.seen.count("ModelMetadata") == before + 1, "asked once"


def test_many_inferences_and_streams_and_sequences_look_as_well(server: Any, connect: Any) -> None:
    for change, value, name, output in CHANGES:
        for way in ("many", "stream", "sequence", "all steps"):
            Interface(server)
            model = connect.run(connect(server.url).model("m"))
            Interface(server, **change)
            inputs = {name: value}
            if way == "many":
                answers = connect.run(model.infer_many([inputs], outputs=[output]))
            elif change == {"rows": 1}:
                continue  # neither can be split
            elif way == "stream":
                answers = connect.run(model.stream(inputs, outputs=[output]))
            elif way == "sequence":
                answers = [connect.run(model.sequence(7, outputs=[output]).infer(inputs, end=True))]
            else:
                answers = connect.run(model.sequence(7, outputs=[output]).infer_all([inputs]))
            for answer in answers:
                np.testing.assert_array_equal(answer[output], value)


def test_what_the_server_refuses_is_sent_again_as_it_was_given(server: Any, connect: Any) -> None:
    """The caller's array holds something else by then."""
    Interface(server)
    model = connect.run(connect(server.url).model("m"))
    Interface(server, rows=1)
    values = np.zeros((2, 2), np.float32)

    def items() -> Any:
        for number in range(3):
            values[:] = number
            yield {"x": values}

    answers = connect.run(model.infer_many(items(), concurrency=3))
    assert [float(answer["y"].max()) for answer in answers] == [0, 1, 2]
    assert [float(answer["y"].min()) for answer in answers] == [0, 1, 2]


def test_a_stream_that_the_server_refuses_is_sent_again(server: Any, connect: Any) -> None:
    Interface(server)
    model = connect.run(connect(server.url).model("m"))
    changed = Interface(server, rows=1)
    with pytest.raises(errors.InvalidInput, match="at most 1"):
        connect.run(model.stream({"x": X}))
    changed.rows = 8
    time.sleep(1.1)
    assert len(connect.run(model.stream({"x": X}))) == 1


def test_a_wrong_request_that_is_repeated_is_no_storm(server: Any, connect: Any) -> None:
    """A thousand wrong requests make the client look a few times, and not a thousand."""
    Interface(server)
    model = connect.run(connect(server.url).model("m"))
    started = time.monotonic()
    for _ in range(300):
        for wrong in ({"x": X[:, :1]}, {"z": X}):
            with pytest.raises(errors.InvalidInput):
                connect.run(model.infer(wrong))
    looks = server.seen.count("ModelMetadata") - 1
    assert 1 <= looks <= 1 + (time.monotonic() - started)
    # Right requests go on, and none is sent twice.
    sent = len(server.requests)
    connect.run(model.infer({"x": X}))
    assert len(server.requests) == sent + 1


def test_a_look_that_failed_confirms_nothing(server: Any, connect: Any) -> None:
    """A server that is away for a moment may come back with the interface that fits."""
    Interface(server)
    client = connect(server.url, retries=0)
    model = connect.run(client.model("m"))
    new = Interface(server, columns=3)
    server.calls["ModelMetadata"] = lambda _, context: context.abort(
        grpc.StatusCode.UNAVAILABLE, "starting"
    )
    wide = np.ones((2, 3), np.float32)
    with pytest.raises(errors.InvalidInput):
        connect.run(model.infer({"x": wide}))
    server.calls["ModelMetadata"] = new.metadata
    assert (connect.run(model.infer({"x": wide}))["y"] == wide).all()


def test_what_cannot_be_copied_is_refused_for_what_it_is(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    for odd in ((n for n in range(3)), threading.Lock()):
        with pytest.raises(errors.InvalidInput):
            connect.run(model.infer({"x": odd}))


def test_what_the_server_refuses_for_its_own_reasons_is_sent_once(
    server: Any, connect: Any
) -> None:
    server.infer = lambda _, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    model = connect.run(connect(server.url).model("m"))
    for _ in range(5):
        with pytest.raises(errors.InvalidInput, match="no"):
            connect.run(model.infer({"x": X}))
    assert len(server.requests) == 5
    assert server.seen.count("ModelMetadata") <= 3


def test_threads_that_find_it_together_ask_once(server: Any) -> None:
    Interface(server)
    with TritonClient(server.url) as client:
        model = client.model("m")
        changed = Interface(server, columns=3)

        def slowly(*_: Any) -> Any:
            time.sleep(0.2)
            return changed.metadata()

        server.calls["ModelMetadata"] = slowly
        value = np.ones((1, 3), np.float32)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: model.infer({"x": value}), range(64)))
        assert server.seen.count("ModelMetadata") == 2


def test_a_server_that_does_not_answer_then_hides_nothing(server: Any, connect: Any) -> None:
    model = connect.run(connect(server.url).model("m"))
    server.calls["ModelMetadata"] = lambda _, context: context.abort(
        grpc.StatusCode.UNAVAILABLE, "away"
    )
    with pytest.raises(errors.InvalidInput, match="'z'"):
        connect.run(model.infer({"z": X}, deadline=5))
    np.testing.assert_array_equal(connect.run(model.infer({"x": X}))["y"], X)


def test_a_model_that_is_asked_for_again_has_what_was_found(server: Any, connect: Any) -> None:
    Interface(server)
    client = connect(server.url)
    model = connect.run(client.model("m"))
    Interface(server, columns=3, version="2")
    connect.run(model.infer({"x": np.ones((1, 3), np.float32)}))
    again = connect.run(client.model("m"))
    assert again is model
    assert (again.spec.inputs[0].shape, again.spec.version) == ((-1, 3), "2")
