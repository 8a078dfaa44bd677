"""Starts ``stlab serve`` on ``model_repository``, asks one question, and compares the answer.

    python -m benchmarks.serve_once huge question.npz

It prints the seconds until the server was ready, the seconds of the call, and the largest
difference from the answer in the file, as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from examples.us_income.stlab_commands import start_server
from triton_client import TritonClient

_READY_SECONDS = 600.0


def main() -> None:
    """Serve, ask, compare."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model")
    parser.add_argument("question", type=Path)
    options = parser.parse_args()
    with np.load(options.question) as file:
        question, expected = file["question"], file["answer"]
    begin = time.perf_counter()
    with start_server(
        "model_repository", log=Path("server.log"), environment=dict(os.environ)
    ) as server:
        server.wait_until_ready(_READY_SECONDS)
        ready = time.perf_counter()
        with TritonClient(server.url) as client:
            model = client.model(options.model)
            (name,) = (tensor.name for tensor in model.spec.inputs)
            (answer,) = model.infer({name: question}).values()
        done = time.perf_counter()
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)
    print(
        json.dumps(
            {
                "ready_seconds": ready - begin,
                "answer_seconds": done - ready,
                "largest_difference": float(np.abs(answer - expected).max()),
            }
        )
    )


if __name__ == "__main__":
    main()
