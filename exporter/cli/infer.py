"""``stlab infer``: one inference on a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import AsJson, finish

__all__ = ["infer"]


def infer(
    model: Annotated[str, typer.Argument(help="The served model.")],
    inputs: Annotated[
        Path, typer.Option("--input", help="The inputs: a .npz with an array each, or a .json.")
    ],
    url: Annotated[
        str, typer.Option(envvar="STLAB_TRITON_URL", help="HOST:PORT (gRPC) of the server.")
    ] = "localhost:8001",
    version: Annotated[int | None, typer.Option(min=1, help="The version.")] = None,
    outputs: Annotated[
        list[str] | None, typer.Option(help="An output to return, all by default; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .npz to write the outputs to.")] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that the inference may take.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Send inputs to a served model, and print its outputs."""
    from exporter.cli.tables import print_answer
    from exporter.commands import InferRequest
    from exporter.commands import infer as run

    result = run(
        InferRequest(
            model=model,
            inputs=inputs,
            url=url,
            version=version,
            outputs=tuple(outputs or ()),
            output=output,
            deadline=deadline,
        )
    )
    finish(result, print_answer, as_json=as_json, redacted=False)
