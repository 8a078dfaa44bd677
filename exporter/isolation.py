"""Has a bundle built by a process of its own; see `exporter.worker`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from exporter.building import BuildJob, Candidate
from exporter.bundle import Bundle
from exporter.environment import bare_environment
from exporter.errors import StlabError, ValidationFailed, error_of
from exporter.parity.samples import load_samples
from exporter.sandbox import hide_environment
from exporter.worker import RESULT, TRUTH, job_as_json

if TYPE_CHECKING:
    from exporter.parity.evidence import Evidence
    from exporter.progress import Steps

__all__ = ["build_apart"]

_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)


def build_apart(job: BuildJob, evidence: Evidence, steps: Steps) -> Candidate:
    """Build a bundle in another process; see `exporter.building.build`.

    Raises:
        ValidationFailed: As `build` does; or the model crashed the process.
        StlabError: The process died; the end of what it said is in the message.
    """
    if job.allow_pickle:
        # What is unpickled there must not read this process's secrets from /proc.
        with suppress(OSError):
            hide_environment()
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(
            # -P: nothing that lies in the working directory is imported.
            [sys.executable, "-P", "-m", "exporter.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=bare_environment(),
            text=True,
        )
        try:
            _follow(worker, job, steps)
            worker.wait()
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        result = job.folder.parent / RESULT
        if worker.returncode != 0 or not result.is_file():
            log.seek(0)
            raise _died(worker.returncode, log.read().decode(errors="replace"))
    outcome = json.loads(result.read_bytes())
    evidence.restore(outcome["evidence"])
    if outcome["error"] is not None:
        raise error_of(outcome["exit_code"], **outcome["error"])
    truth = load_samples(job.folder.parent / TRUTH, evidence.batching, slow=outcome["slow"])
    return Candidate(Bundle.open(job.folder, job.model, job.version), truth)


def _follow(worker: subprocess.Popen[str], job: BuildJob, steps: Steps) -> None:
    """Hand over the job and pass on what the worker tells, until it has nothing more to tell."""
    if worker.stdin is None or worker.stdout is None:  # pragma: no cover - both are pipes
        return
    try:
        with worker.stdin as pipe:
            pipe.write(job_as_json(job) + "\n")
    except BrokenPipeError:
        return  # it died at once; its exit code tells
    with worker.stdout as events:
        for line in events:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "begin":
                steps.begin(event["step"])
            elif event["event"] == "say":
                steps.say(event["text"])
            else:
                steps.end(event["step"], event["seconds"], failed=event["failed"])


def _died(code: int | None, log: str) -> StlabError:
    tail = "\n".join(log.strip().splitlines()[-15:])
    if code is not None and -code in _CRASHES:
        return ValidationFailed(
            f"the model brings down the process that loads and runs it "
            f"({signal.Signals(-code).name}): {tail or 'it said nothing'}",
            hint="Load and run the version as it was logged; if that works, please report this.",
            kind="artifact",
        )
    if code == -signal.SIGKILL:
        return StlabError(
            "the process that builds the bundle was killed",
            hint="The kernel does that when memory runs out; give the runner more.",
        )
    return StlabError(
        f"the process that builds the bundle ended with {code}:\n{tail}",
        hint="This is a fault of stlab or of a library it uses; please report it with the above.",
    )
