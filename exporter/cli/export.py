"""``stlab export``: convert, prove and serve a registered version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import (
    AllowManual,
    AsJson,
    ExpectCurrent,
    Model,
    Repository,
    TritonRelease,
    TritonUrls,
    run_with_progress,
    server_addresses,
    tracking_uri,
)
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["UNCONFINED", "export"]

# The internal form of --allow-pickle=unconfined: Typer's flags take no values.
UNCONFINED = "--unconfined"


def export(
    model: Model,
    alias: Annotated[
        str,
        typer.Option(envvar="MLFLOW_MODEL_ALIAS", help="The alias to move: dev, staging or prod."),
    ],
    version: Annotated[
        int | None, typer.Option(help="The version. dev: newest; staging: what dev points to.")
    ] = None,
    target_format: Annotated[
        str, typer.Option("--format", help="onnx, torchscript or tensorrt.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    accelerator: Annotated[
        str, typer.Option(help="tensorrt: run an onnx model by Triton's TensorRT accelerator.")
    ] = "",
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    triton_release: TritonRelease = "",
    prove_on: Annotated[
        str, typer.Option(help="HOST:PORT (gRPC) of a server to prove on, in explicit mode.")
    ] = "",
    batching: Annotated[
        str, typer.Option(help="auto: batch if rows are independent; require: or fail; off.")
    ] = "auto",
    max_batch_size: Annotated[int, typer.Option(help="The most rows in one request.")] = 32,
    max_queue_size: Annotated[
        int, typer.Option(help="Requests that may wait before more are rejected; 0: any number.")
    ] = 0,
    samples: Annotated[
        Path | None, typer.Option(help="A .npz with further inputs: 'input' or 'case/input'.")
    ] = None,
    expect_current: ExpectCurrent = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            help="Load pickled content, confined; =unconfined: with network and all files."
        ),
    ] = False,
    unconfined: Annotated[bool, typer.Option(UNCONFINED, hidden=True)] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that loading, running and converting may take.")
    ] = 3600.0,
    model_memory: Annotated[
        str, typer.Option(help="Memory for the model's process, such as 8G. [default: all]")
    ] = "",
    allow_manual: AllowManual = False,
    allow_weak_evidence: Annotated[
        bool, typer.Option(help="Let prod take a version with weak evidence, on record.")
    ] = False,
    require_coverage: Annotated[
        float, typer.Option(help="Least share (0 to 1) of what the model knows to be compared.")
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option(help="Print the plan only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a version, prove it on a Triton server, publish it, and move the alias."""
    from exporter.cli.tables import print_result
    from exporter.commands import ExportRequest
    from exporter.commands import export as run
    from exporter.commands.export.request import byte_size

    request = ExportRequest(
        model=model,
        alias=alias,
        version=version,
        repository=repository,
        tracking_uri=tracking_uri(),
        triton_urls=server_addresses(triton_url),
        triton_release=triton_release,
        prove_on=prove_on,
        format=target_format,
        precision=precision,
        accelerator=accelerator,
        batching=batching,
        max_batch_size=max_batch_size,
        max_queue_size=max_queue_size,
        samples=samples,
        expect_current=expect_current,
        allow_pickle=allow_pickle,
        unconfined=unconfined,
        timeout=timeout,
        model_memory=byte_size(model_memory) if model_memory else 0,
        allow_manual=allow_manual,
        allow_weak_evidence=allow_weak_evidence,
        require_coverage=require_coverage,
        dry_run=dry_run,
    )
    run_with_progress(run, request, print_result, as_json=as_json)
