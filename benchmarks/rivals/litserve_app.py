"""The same model in LitServe: batching, one worker, and one process for HTTP, which it needs.

    MODEL=model.onnx python litserve_app.py PORT

Of batch timeouts from 0 to 5 ms, 1 ms is the fastest without a core that spins; ``fast_queue`` is
what LitServe advises for more than 100 requests per second. A finished response spares FastAPI's
own, slower, encoding.
"""

from __future__ import annotations

import json
import os
import sys

import litserve
import numpy as np
import onnxruntime
from starlette.responses import Response


class Forecaster(litserve.LitAPI):
    """Holds the session."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - of LitAPI
        """Load the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    def decode_request(self, request):  # LitServe would take types for those of the body
        """Return the one row of a question."""
        return np.asarray(request["history"], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return the rows of several questions."""
        return np.concatenate(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Answer for every row."""
        (forecast,) = self._session.run(["forecast"], {"history": x})
        return forecast

    def encode_response(self, output):
        """Return the answer of one row."""
        body = json.dumps({"forecast": [output.tolist()]})
        return Response(body, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(
        Forecaster(max_batch_size=32, batch_timeout=0.001),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
