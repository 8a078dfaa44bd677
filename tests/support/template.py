"""The process that `tests.support.forked` forks; run as
``python -m tests.support.template DESCRIPTOR``."""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from exporter.system.environment import raise_gc_thresholds
from tests.support.databases import commit_to_memory

_LONGEST = 1 << 20
_IMPORTED = (
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.artifact.mlflow_artifacts_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "exporter.cli.output",
    "exporter.cli.tables",
    "exporter.commands.doctor.command",
    "exporter.commands.export.pipeline",
    "exporter.commands.infer.command",
    "exporter.commands.prune",
    "exporter.commands.pull",
    "exporter.commands.rollback",
    "exporter.commands.status.command",
    "exporter.commands.verify",
    "exporter.sources.onnx",
    "exporter.formats.onnx",
    "stlab_api.__main__",
)


def import_what_commands_do() -> None:
    """Import the commands, and what they import of MLflow for registries in SQLite and by HTTP."""
    raise_gc_thresholds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _IMPORTED:
            import_module(name)
    commit_to_memory()
    threads = [*Path("/proc/self/task").iterdir()]
    assert len(threads) == 1, "a fork would lose threads"
    # So that forks do not copy every page when they collect.
    gc.collect()
    gc.freeze()


def next_job(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next command and its descriptors: stdin, stdout, stderr and where it ends."""
    message, ancillary, _, _ = control.recvmsg(_LONGEST, socket.CMSG_SPACE(4 * 4))
    if not message:
        raise SystemExit
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    return json.loads(message), list(descriptors)


def watch(descriptors: list[int]) -> bool:
    """Fork, and send the process and then how it ended; returns true in the fork alone."""
    child = os.fork()
    if not child:
        return True
    for descriptor in descriptors[:3]:
        os.close(descriptor)
    with socket.socket(fileno=descriptors[3]) as told:
        told.send(str(child).encode())
        told.send(str(os.waitpid(child, 0)[1]).encode())
    os._exit(0)


def become(job: dict[str, Any], descriptors: list[int]) -> None:
    """Take on what a process that was started would have."""
    for number, descriptor in enumerate(descriptors):
        if number < 3:
            os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = job["argv"]
    sys.path[0] = ""


def main() -> dict[str, Any]:
    """Fork for each command; returns the command, in its fork."""
    control = socket.socket(fileno=int(sys.argv[1]))
    import_what_commands_do()
    control.send(b"ready")
    while True:
        job, descriptors = next_job(control)
        # A process in between waits for each, so that this one need not.
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if watch(descriptors):
            become(job, descriptors)
            return job


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    exec(compile(main()["code"], "<string>", "exec"), {"__name__": "__main__"})
