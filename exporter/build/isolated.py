"""Build a bundle in a separate, sandboxed process; see `exporter.build.worker`."""

from __future__ import annotations

import dataclasses
import signal
import site
import tempfile
from collections.abc import Iterator
from pathlib import Path

from exporter.build.builder import BuildJob, Candidate
from exporter.build.worker import JOB, REFERENCES, RESULT, job_as_json
from exporter.build.worker_output import (
    malformed,
    read_event,
    read_outcome,
    read_reference_set,
    take_bundle,
)
from exporter.build.worker_schema import Event
from exporter.errors import (
    ConflictError,
    StlabError,
    UnavailableError,
    ValidationFailedError,
    error_of,
    resource_error,
)
from exporter.parity.evidence import Evidence
from exporter.progress import Steps
from exporter.system.bytecode import compile_modules
from exporter.system.confined import READY
from exporter.system.environment import minimal_environment
from exporter.system.limits import (
    Limits,
    exhausted,
    memory_of_machine,
    room_of_machine,
    threads_within,
)
from exporter.system.piped import LineTooLongError, Listened
from exporter.system.sandbox import Confinement, confined_command, confinement, hide_process, suited
from exporter.system.view import View, view
from exporter.text.terminal import safe_lines
from exporter.triton.installation import cache_directory, make_folder

__all__ = ["build_isolated", "check_confinement"]

_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS,
     signal.SIGTRAP, signal.SIGXFSZ}
)  # fmt: skip
# A file may have this many bytes, plus a multiple of the size of the artifacts.
_FILE_BYTES, _ARTIFACT_MULTIPLE = 4 << 30, 8
_THREADS = 4096


def check_confinement(*, allow_pickle: bool, unconfined: bool) -> Confinement:
    """Return the sandbox that this machine offers for a model's code.

    Args:
        allow_pickle: Whether the model may contain code.
        unconfined: Whether the code may run with all of this user's rights.

    Raises:
        ConflictError: The model may contain code, and this machine cannot sandbox it; the kind is
            ``confinement``.
    """
    if unconfined:
        return Confinement()
    offered = confinement()
    if allow_pickle and not offered.complete:
        raise ConflictError(
            f"pickles are not loaded on this machine, which cannot confine their code (available: "
            f"{offered})",
            hint="Install bubblewrap, or use Linux 5.13 or newer on x86_64 or aarch64; "
            "--allow-pickle=unconfined runs the model's code with access to the network and to all "
            "files of this user.",
            kind="confinement",
        )
    return offered


def build_isolated(job: BuildJob, evidence: Evidence, steps: Steps) -> Candidate:
    """Build a bundle in the worker process; see `exporter.build.builder.build`.

    Raises:
        ConflictError: The process cannot be confined.
        ValidationFailedError: As in `build`; or the model crashed the process, exceeded the
            timeout, or left malformed output.
        UnavailableError: The process was killed.
        StlabError: The process failed; the message holds the end of its stderr.
    """
    offered = check_confinement(allow_pickle=job.allow_pickle, unconfined=job.unconfined)
    # The model's code must not read this process's secrets from /proc.
    hide_process()
    scratch = Path(tempfile.mkdtemp(prefix="model-", dir=job.folder.parent)).absolute()
    for name in ("bundle", "home", "tmp"):
        (scratch / name).mkdir()
    (scratch / JOB).write_text(job_as_json(_moved(job, scratch / "bundle")))
    visible = _view(job, scratch)
    offered = suited(offered, visible)
    limits = _limits(job, visible, offered)
    process = Listened(
        confined_command(offered, visible, limits, "exporter.build.worker", str(scratch / JOB)),
        _environment(job, scratch),
        scratch,
        job.timeout,
    )
    try:
        _follow(process, steps, job.timeout)
    finally:
        process.end()
    if process.returncode != 0:
        raise _exit_error(process, confined=bool(offered.bwrap))
    outcome = read_outcome(scratch / RESULT)
    compile_modules(outcome.uncompiled)
    evidence.restore(outcome.evidence.model_dump())
    if outcome.error is not None:
        raise error_of(outcome.exit_code, **outcome.error.model_dump())
    references = read_reference_set(scratch / REFERENCES, evidence.batching, slow=outcome.slow)
    bundle = take_bundle(scratch / "bundle", scratch / REFERENCES, job)
    evidence.notes += _notes(job, offered)
    return Candidate(bundle, references)


def _moved(job: BuildJob, folder: Path) -> BuildJob:
    """Return the job with absolute paths, and another folder for the bundle."""
    return dataclasses.replace(
        job,
        artifact=job.artifact.absolute(),
        samples=job.samples and job.samples.absolute(),
        parts={place: path.absolute() for place, path in job.parts.items()},
        folder=folder,
    )


def _view(job: BuildJob, scratch: Path) -> View:
    inputs = [job.artifact, *job.parts.values(), *([job.samples] if job.samples else [])]
    # TensorRT's timing cache is writable, for the next build, unless the model contains code.
    timings = cache_directory() / "tensorrt"
    writable = job.settings["format"] == "tensorrt" and not job.allow_pickle
    if writable:
        make_folder(timings)
    return view([*inputs, timings], [scratch, *([timings] if writable else []), scratch / "tmp"])


def _limits(job: BuildJob, visible: View, offered: Confinement) -> Limits:
    inputs = [job.artifact, *job.parts.values()]
    size = sum(file.stat().st_size for path in inputs for file in path.rglob("*") if file.is_file())
    return Limits(
        # CUDA reserves more address space than any machine has memory.
        address_space=0 if visible.gpus else job.memory,
        data=job.memory or room_of_machine(),
        file_size=_FILE_BYTES + _ARTIFACT_MULTIPLE * size,
        # Without a user namespace the threads of other processes and containers count as well.
        threads=_THREADS if offered.bwrap else 0,
    )


def _environment(job: BuildJob, scratch: Path) -> dict[str, str]:
    return {
        # OpenBLAS fails or hangs if it cannot reserve memory for every thread.
        "OPENBLAS_NUM_THREADS": str(threads_within(job.memory or memory_of_machine())),
        **minimal_environment(),
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "PYTHONUSERBASE": site.getuserbase(),
        "STLAB_CACHE": str(cache_directory().absolute()),
        # The sandbox allows no child processes: joblib then runs in this one.
        "JOBLIB_MULTIPROCESSING": "0",
    }


def _follow(process: Listened, steps: Steps, seconds: float) -> None:
    """Forward the events of the process until it ends."""
    current = "starting"
    try:
        lines = process.lines()
        _await_confinement(process, lines)
        for line in lines:
            event = read_event(line)
            current = _forward(event, steps) or current
    except LineTooLongError as error:
        raise malformed("sent a line without an end") from error
    except TimeoutError as error:
        raise ValidationFailedError(
            f"the model's process did not end within {seconds:g} seconds; current step: {current}",
            hint="Raise --timeout, or check what the model does when it is loaded and run.",
            kind="timeout",
        ) from error


def _await_confinement(process: Listened, lines: Iterator[bytes]) -> None:
    if next(lines, b"").decode(errors="replace") != READY:
        tail = _tail(process.errors)
        if exhausted(tail):
            raise resource_error(tail)
        raise ConflictError(
            f"the model's process cannot be confined here:\n{tail}",
            hint="Check what this machine offers: stlab doctor",
            kind="confinement",
        )


def _forward(event: Event, steps: Steps) -> str:
    """Forward an event, and return the step that is running after it."""
    if event.event == "begin":
        steps.begin(event.step)
        return event.step
    if event.event == "say":
        steps.say(event.text)
        return f"{event.step} ({event.text})"
    steps.end(event.step, event.seconds, failed=event.failed)
    return ""


def _notes(job: BuildJob, offered: Confinement) -> list[str]:
    if offered.complete:
        return []
    if job.unconfined:
        return ["The model's code ran unconfined because of --allow-pickle=unconfined."]
    return [f"The model ran in a process that this machine cannot confine (available: {offered})."]


def _exit_error(process: Listened, *, confined: bool) -> StlabError:
    code, tail = process.returncode or 0, _tail(process.errors)
    # Like a shell, bubblewrap exits with 128 plus the signal that ended its child.
    number = code - 128 if confined and code > 128 else -code
    if number in _CRASHES:
        return ValidationFailedError(
            f"the model crashes the process that loads and runs it "
            f"({signal.Signals(number).name}): {tail or 'no output on stderr'}",
            hint="Load and run the version as it was logged; if that works, please report this.",
            kind="artifact",
        )
    if number == signal.SIGKILL:
        return UnavailableError(
            "the model's process was killed",
            hint="The kernel does that when memory runs out: use a machine with more memory, or "
            "limit the model with --model-memory.",
            kind="memory",
        )
    if exhausted(tail):
        return resource_error(tail)
    return StlabError(
        f"the process that builds the bundle ended with {code}:\n{tail}",
        hint="This is a bug in stlab or in a library that it uses; please report the output above.",
    )


def _tail(errors: str) -> str:
    return "\n".join(safe_lines(errors).strip().split("\n")[-15:])
