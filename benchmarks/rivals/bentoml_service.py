"""The same model in BentoML: adaptive batching, one worker, no metrics and no log of requests.

    MODEL=model.onnx bentoml serve bentoml_service:Forecaster

``async`` is faster here than the thread pool that it gives other functions, and the default of
``max_latency_ms`` than a small one, which makes it refuse requests on a busy machine.
"""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import DType

Rows = Annotated[np.ndarray, DType("float32")]


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Forecaster:
    """Holds the session."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api(batchable=True, max_batch_size=32)
    async def predict(self, history: Rows) -> Rows:
        """Answer for every row of the questions of a batch."""
        (forecast,) = self._session.run(["forecast"], {"history": history})
        return forecast
