"""Builds a bundle in a process of its own: ``python -m exporter.worker``.

Whatever of the registry model runs, runs here: without the parent's secrets, and with memory that
is given back whole when it ends. It reads its job as JSON from stdin, tells of its steps in lines
of JSON on stdout, and leaves plain data in the job's workspace, never pickles.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

from exporter.building import BuildJob, build
from exporter.environment import collect_seldom, leave
from exporter.errors import StlabError, UsageError
from exporter.parity.evidence import Evidence
from exporter.parity.samples import save_truth
from exporter.progress import Steps
from exporter.sandbox import cut_network

__all__ = ["RESULT", "TRUTH", "job_as_json"]

RESULT = "built.json"
TRUTH = "truth.npz"
_PR_SET_PDEATHSIG = 1


def job_as_json(job: BuildJob) -> str:
    """Return a job as the one line that a worker reads."""
    return json.dumps(dataclasses.asdict(job), default=str)


def _job(text: str) -> BuildJob:
    fields = json.loads(text)
    for name in ("artifact", "folder", "samples"):
        fields[name] = fields[name] and Path(fields[name])
    fields["parts"] = {place: Path(path) for place, path in fields["parts"].items()}
    return BuildJob(**fields)


class _Events:
    """Tells the parent of steps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, step: str) -> None:
        """Tell that a step begins."""
        self._tell(event="begin", step=step)

    def say(self, step: str, text: str) -> None:
        """Tell what is being done."""
        self._tell(event="say", step=step, text=text)

    def end(self, step: str, seconds: float, *, failed: bool) -> None:
        """Tell what a step took."""
        self._tell(event="end", step=step, seconds=seconds, failed=failed)

    def _tell(self, **event: object) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()


_NO_SANDBOX = UsageError(
    "nothing is unpickled here: this system offers no way to keep its code from the network",
    hint="Run the export on Linux (x86_64 or aarch64) with seccomp, or log the model in a form "
    "that is no pickle.",
)


def _cut_network() -> bool:
    try:
        cut_network()
    except OSError:
        return False
    return True


def _main() -> None:
    collect_seldom()
    # A worker has no use without its parent, however that ended.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    offline = _cut_network()
    # What libraries print must not look like events.
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)
        job = _job(sys.stdin.readline())
        workspace = job.folder.parent
        evidence = Evidence()
        result: dict[str, object] = {"error": None, "exit_code": 0, "slow": False}
        try:
            if job.allow_pickle and not offline:
                raise _NO_SANDBOX
            candidate = build(job, evidence, Steps(_Events(stream)))
            save_truth(workspace / TRUTH, candidate.truth)
            result["slow"] = candidate.truth.slow
        except StlabError as error:
            result.update(error=error.as_dict(), exit_code=error.exit_code)
        result["evidence"] = evidence.state()
        (workspace / RESULT).write_text(json.dumps(result))
    leave(0)


if __name__ == "__main__":
    _main()
