"""Distinguish a fault of the server's machine from a fault of the candidate.

A trivial, correct model is loaded on the same server, by the same backend, and run once. If that
fails as well, the candidate is not the cause: the machine lacks file descriptors, memory or disk,
or the server's own files are damaged.
"""

from __future__ import annotations

import io
import json
import secrets
from contextlib import suppress

import numpy as np

from exporter.errors import UnavailableError
from triton_client import TritonClient
from triton_client.errors import TritonClientError

__all__ = ["check_server"]

CONTROL_SECONDS = 60.0
_FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}


def check_server(client: TritonClient, backend: str) -> None:
    """Load and run a trivial model, if there is one for the backend.

    Raises:
        UnavailableError: The model fails: the server or its machine is at fault.
    """
    file = _FILES.get(backend)
    if file is None:
        return
    name = f"stlab-control-{secrets.token_hex(8)}"
    x, y = ("INPUT__0", "OUTPUT__0") if backend == "pytorch" else ("x", "y")
    config = {
        "name": name,
        "backend": backend,
        "default_model_filename": file,
        "input": [{"name": x, "data_type": "TYPE_FP32", "dims": [2]}],
        "output": [{"name": y, "data_type": "TYPE_FP32", "dims": [2]}],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    content = _torchscript() if backend == "pytorch" else _onnx()
    values = np.array([0.5, -2.0], np.float32)
    try:
        client.repository.load(
            name,
            config=json.dumps(config),
            files={f"1/{file}": content},
            deadline=CONTROL_SECONDS,
        )
        output = client.model(name).infer({x: values}, deadline=CONTROL_SECONDS)[y]
    except TritonClientError as error:
        raise UnavailableError(
            f"the proving server cannot serve a trivial model either: "
            f"{' '.join(error.message.split())}",
            hint="The machine is at fault, not the model: check its limits of open files, "
            "processes and memory (ulimit -a), and the free space in /dev/shm and in the temporary "
            "folder. Then run the export again.",
        ) from error
    finally:
        with suppress(TritonClientError):
            client.repository.unload(name)
    if not np.array_equal(output, values):
        raise UnavailableError(
            f"the proving server returns {output} for an identity model with the input {values}",
            hint="The server's own files are damaged. Remove the folder 'runtime' in stlab's cache "
            "(~/.cache/stlab, or STLAB_CACHE), or reinstall the tritonserver on PATH.",
        )


def _onnx() -> bytes:
    """Return an identity model that every release of ONNX Runtime loads."""
    from onnx import TensorProto, helper

    def tensor(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "control", [tensor("x")], [tensor("y")]
    )
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=7)
    return bytes(model.SerializeToString())


def _torchscript() -> bytes:
    from exporter.formats.torchscript.archive import write_identity

    stream = io.BytesIO()
    write_identity(stream)
    return stream.getvalue()
