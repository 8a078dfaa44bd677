"""The service that a team writes without Triton: FastAPI, JSON, one ONNX Runtime session.

    MODEL=model.onnx uvicorn benchmarks.fastapi_app:app

Threads are set as in the config.pbtxt that ``stlab-export`` writes for a small model: one, which
does not spin. The endpoint is ``async`` although it computes: for a model this small, handing every
request to FastAPI's thread pool costs more than it brings.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

app = FastAPI()


class Question(BaseModel):
    """Histories: rows, states, years."""

    history: list[list[list[float]]]


class Answer(BaseModel):
    """Forecasts: rows, states, years."""

    forecast: list[list[list[float]]]


@app.post("/predict")
async def predict(question: Question) -> Answer:
    """Answer for every row of the question."""
    history = np.asarray(question.history, dtype=np.float32)
    (forecast,) = session.run(["forecast"], {"history": history})
    return Answer(forecast=forecast.tolist())
