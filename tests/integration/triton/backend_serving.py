"""A server with cases in its repository, and a client of it."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from exporter.triton.server import TritonServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporter.triton.runtime import Runtime
from tests.integration.triton.backend_cases import Case, named


class Client:
    """A server with every case in its repository, and a client of it."""

    def __init__(self, server: TritonServer) -> None:
        server.wait_live()
        # The client's own channel keeps a thread whose socket is closed late.
        self.grpc = triton.InferenceServerClient(server.grpc_url)
        self.headers = {f"triton-grpc-protocol-{name}": key for name, key in server.keys.items()}

    def verdict(self, name: str) -> str:
        """Load a model; return why it was refused, or nothing."""
        try:
            self.grpc.load_model(name, headers=self.headers, client_timeout=60)
        except InferenceServerException as error:
            return str(error)
        return ""

    def answer(self, case: Case) -> dict[str, np.ndarray]:
        inputs = []
        for name, value in case.inputs.items():
            wire = "BYTES" if value.dtype == np.object_ else triton_datatype(value)
            given = triton.InferInput(name, list(value.shape), wire)
            given.set_data_from_numpy(value)
            inputs.append(given)
        outputs = [triton.InferRequestedOutput(name) for name in case.outputs]
        result = self.grpc.infer(case.name, inputs, outputs=outputs or None, client_timeout=60)
        return {
            output.name: result.as_numpy(output.name) for output in result.get_response().outputs
        }


def triton_datatype(value: np.ndarray) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(value.dtype))


def write(repository: Path, case: Case) -> None:
    folder = repository / case.name / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(case.config)
    # Saving with external data empties the tensors of the model that it is given.
    proto = type(case.model)()
    proto.CopyFrom(case.model)
    (case.layout or named("model.onnx"))(folder, proto)


def serving(
    runtime: Runtime, repository: Path, cases: Sequence[Case], *further: str
) -> Iterator[Client]:
    for case in cases:
        write(repository, case)
    with TritonServer.start(runtime, str(repository), extra_args=further) as server:
        client = Client(server)
        yield client
        client.grpc.close()
        del client
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
