"""The result of a command: the same object on success and on failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from exporter.errors import StlabError
from exporter.progress import Listener, Steps

if TYPE_CHECKING:
    from exporter.bundle import Bundle

__all__ = ["CommandResult", "Job", "JobResult", "bundle_summary"]

FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """The result of a command; `as_dict` is the object that ``--json`` prints.

    Attributes:
        error: Kind, message and hint; None on success.
        exit_code: The exit code of the process.
    """

    error: Mapping[str, str] | None = None
    exit_code: int = 0

    def failed(self, error: StlabError) -> Self:
        """Return the result with an error in it."""
        return replace(self, error=error.as_dict(), exit_code=error.exit_code)

    def content(self) -> dict[str, Any]:
        """Return the command's own keys of the JSON object."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object, with the same keys on success and on failure."""
        return {"schema": 1, **self.content(), "error": self.error}


@dataclass(frozen=True, slots=True)
class JobResult(CommandResult):
    """The result of a command that runs in steps.

    Attributes:
        status: ``failed`` until the job has succeeded.
        seconds: Seconds by step, with ``total``.
    """

    status: str = FAILED
    seconds: Mapping[str, float] = field(default_factory=dict, kw_only=True)


Request = TypeVar("Request")
Result = TypeVar("Result", bound=JobResult)


class Job(Generic[Request, Result]):
    """A command that runs in steps, which update its result."""

    def __init__(self, request: Request, result: Result, listener: Listener | None) -> None:
        self.request = request
        self.result = result
        self.steps = Steps(listener)

    def run(self) -> None:
        """Run the steps.

        Raises:
            StlabError: A step failed; changes are undone.
        """
        raise NotImplementedError

    def finish(self) -> Result:
        """Run the steps, and return the result, which holds the error on failure.

        An interrupt after the job has succeeded does not make it a failure.
        """
        try:
            self.run()
        except StlabError as error:
            self.result = replace(self.result.failed(error), status=FAILED)
        except KeyboardInterrupt:
            if self.result.status == FAILED:
                self.result = self.result.failed(
                    StlabError(
                        "interrupted; changes are undone",
                        hint="Run the same command again.",
                        kind="interrupted",
                    )
                )
        return replace(self.result, seconds=self.steps.seconds)


def bundle_summary(bundle: Bundle, **more: Any) -> dict[str, Any]:
    """Return the ``bundle`` object of ``--json``: digest, format, bytes and further keys."""
    return {
        "sha256": bundle.sha256,
        "format": bundle.manifest["format"],
        "bytes": bundle.size,
        **more,
    }
