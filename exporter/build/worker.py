"""The worker process: builds a bundle, sandboxed by `exporter.build.isolated`.

The registry model runs only here: without the parent's secrets, and with memory that is freed when
the process ends. The process reads its job as JSON from the file in its argument, writes progress
events as lines of JSON to stdout, and leaves plain data next to the job, never pickles.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TextIO

from exporter.build.builder import BuildJob, build
from exporter.errors import StlabError, ValidationFailedError, resource_error
from exporter.parity.evidence import Evidence
from exporter.parity.samples import save_reference_set
from exporter.progress import Steps
from exporter.system.environment import exit_now, raise_gc_thresholds
from exporter.system.limits import shortage

__all__ = ["JOB", "REFERENCES", "RESULT", "job_as_json"]

JOB = "job.json"
RESULT = "built.json"
REFERENCES = "references.npz"


def job_as_json(job: BuildJob) -> str:
    """Return the JSON of a job for the worker."""
    return json.dumps(dataclasses.asdict(job), default=str)


def _job(text: str) -> BuildJob:
    fields = json.loads(text)
    for name in ("artifact", "folder", "samples"):
        fields[name] = fields[name] and Path(fields[name])
    fields["parts"] = {place: Path(path) for place, path in fields["parts"].items()}
    return BuildJob(**fields)


class _Events:
    """Writes progress events for the parent; see `exporter.progress.Listener`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, step: str) -> None:
        """Write that a step begins."""
        self._write(event="begin", step=step)

    def say(self, step: str, text: str) -> None:
        """Write a detail of a step."""
        self._write(event="say", step=step, text=text)

    def end(self, step: str, seconds: float, *, failed: bool) -> None:
        """Write that a step ended."""
        self._write(event="end", step=step, seconds=seconds, failed=failed)

    def _write(self, **event: object) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()


def _out_of_memory(error: MemoryError) -> ValidationFailedError:
    detail = f": {error}" if str(error) else ""
    return ValidationFailedError(
        f"the model needs more memory than its process may use{detail}",
        hint="Raise --model-memory, or run the export on a larger machine.",
        kind="memory",
    )


def _main() -> None:
    raise_gc_thresholds()
    job_file = Path(sys.argv[1])
    # What libraries print must not look like events.
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)
        job = _job(job_file.read_text())
        evidence = Evidence()
        result: dict[str, object] = {"error": None, "exit_code": 0, "slow": False}
        try:
            try:
                candidate = build(job, evidence, Steps(_Events(stream)))
            except MemoryError as error:
                raise _out_of_memory(error) from error
            except Exception as error:
                # A full disk or a limit is not the model's fault, however the error was wrapped.
                if lacking := shortage(error):
                    raise resource_error(lacking) from error
                raise
            save_reference_set(job_file.parent / REFERENCES, candidate.references)
            result["slow"] = candidate.references.slow
        except StlabError as error:
            result.update(error=error.as_dict(), exit_code=error.exit_code)
        result |= {"evidence": evidence.state(), "uncompiled": _uncompiled()}
        (job_file.parent / RESULT).write_text(json.dumps(result))
    exit_now(0)


def _uncompiled() -> list[str]:
    """Return the imported modules without bytecode, which the sandbox cannot write."""
    modules = [getattr(module, "__dict__", {}) for module in [*sys.modules.values()]]
    return [
        module["__file__"]
        for module in modules
        if isinstance(module.get("__cached__"), str)
        and isinstance(module.get("__file__"), str)
        and not Path(module["__cached__"]).exists()
    ]


if __name__ == "__main__":
    _main()
