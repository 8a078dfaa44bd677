"""Serve a model repository in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import NotFoundError, UnavailableError
from exporter.names import DEFAULT_REPOSITORY
from exporter.repository.url import StoreUrl, is_url
from exporter.system.environment import minimal_environment
from exporter.system.sandbox import hide_process
from exporter.text.terminal import block
from exporter.triton.flags import flag_names, key_flags, merge_flags, safe_flags
from exporter.triton.keys import claim_key
from exporter.triton.process import GuardedProcess
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import Runtime, ensure_runtime

__all__ = ["ServeRequest", "serve"]

_EXIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """The request of `serve`.

    Attributes:
        repository: A local folder or an object-store URL such as ``s3://bucket/prefix``;
            credentials come from the environment, for the server as well.
        triton_release: The Triton release; empty for the default.
        http_port: Port of the HTTP endpoint.
        grpc_port: Port of the gRPC endpoint.
        metrics_port: Port of the Prometheus endpoint.
        flags: Further flags of tritonserver, which override those of stlab.
    """

    repository: str = DEFAULT_REPOSITORY
    triton_release: str = ""
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    flags: tuple[str, ...] = ()


def serve(request: ServeRequest, progress: Callable[[str], None] | None = None) -> int:
    """Run tritonserver until SIGINT or SIGTERM stops it cleanly.

    All models of the repository are loaded, and exports may load and unload further versions. The
    server listens on loopback, accepts complete configurations only, and is ready when all models
    are. Loading models, shared memory, tracing and logging require a key: ``STLAB_TRITON_KEY``, or
    a new one that this user's commands find by the port.

    ``progress`` receives messages about slow steps before the server starts. Returns the exit code:
    0 after a clean stop.

    Raises:
        NotFoundError: The repository's folder does not exist.
        UsageError: The release is unknown, or the server cannot use the URL.
        ConflictError: Another server of this user has the gRPC port.
        UnavailableError: No tritonserver is available, or it ended by itself.
    """
    target = release(request.triton_release or DEFAULT_RELEASE)
    repository, extra = request.repository, request.flags
    # Models that contain code run in children of this process.
    hide_process()
    environment = minimal_environment()
    if is_url(repository):
        address = StoreUrl.parse(repository)
        repository = address.for_server()
        environment |= address.server_environment(os.environ)
    elif not Path(repository).is_dir():
        raise NotFoundError(
            f"the model repository {repository} does not exist",
            hint="Export a model to it first, or use another --repository.",
        )
    say = progress or _say
    runtime = ensure_runtime(target, progress=say)
    with tempfile.TemporaryDirectory(prefix="stlab-serve-", ignore_cleanup_errors=True) as scratch:
        flags = [
            *safe_flags(runtime),
            f"--model-repository={repository}",
            f"--http-port={request.http_port}",
            f"--grpc-port={request.grpc_port}",
            f"--metrics-port={request.metrics_port}",
        ]
        if not flag_names(extra) & {"--model-control-mode", "--load-model"}:
            flags += ["--model-control-mode=explicit", "--load-model=*"]
        key = claim_key(merge_flags(flags, extra), say=say)
        try:
            flags += key_flags(key.value, extra)
            return _run(runtime, merge_flags(flags, extra), environment, Path(scratch))
        finally:
            key.remove()


def _say(text: str) -> None:
    sys.stderr.write(f"{block(text)}\n")


def _run(
    runtime: Runtime, arguments: Sequence[str], environment: Mapping[str, str], scratch: Path
) -> int:
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = GuardedProcess.start(
            runtime, arguments, environment=environment, output=None, scratch=scratch
        )
        try:
            while process.running and not stopped:
                time.sleep(0.2)  # a signal handler does not end a longer one
        finally:
            process.end(_EXIT_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    code = process.server.returncode
    if not stopped and code:
        raise UnavailableError(
            f"tritonserver ended with exit code {code}; its log is above",
            hint="A model that cannot be loaded ends it; add `-- --exit-on-error=false`. An empty "
            "object store ends it as well; export a model first.",
        )
    return 0
