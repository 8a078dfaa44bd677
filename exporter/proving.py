"""The proving ground: a private Triton server on which a candidate is loaded and compared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.config import differences, parse
from exporter.errors import UnavailableError, ValidationFailed
from exporter.parity.evidence import Check, Evidence
from exporter.parity.replay import replay
from exporter.parity.wire import check_batching, check_numbers
from exporter.repository.local import lay_out
from exporter.triton.runtime import Runtime, ensure_runtime
from exporter.triton.server import TritonServer
from triton_client import TritonClient
from triton_client.errors import TritonClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.bundle import Bundle
    from exporter.interface import Interface
    from exporter.parity.reference import Truth
    from exporter.triton.releases import Release

__all__ = ["ProvingGround"]

# A model of many gigabytes takes minutes to read; a hung server must not hold up a pipeline.
LOAD_SECONDS = 600.0
CALL_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Ground:
    runtime: Runtime
    server: TritonServer


class ProvingGround:
    """A server of the target release with an empty repository, started in the background."""

    def __init__(self, folder: Path, ground: Callable[[], _Ground]) -> None:
        self._folder = folder
        self._ground = ground

    @classmethod
    @contextmanager
    def open(
        cls, folder: Path, release: Release, say: Callable[[str], None]
    ) -> Iterator[ProvingGround]:
        """Start a server that comes up while the caller converts, and stop it at the end.

        Args:
            folder: An empty folder for the server's repository.
            release: The target release.
            say: Told what is being done.
        """
        folder.mkdir()

        def start() -> _Ground:
            runtime = ensure_runtime(release, progress=say)
            return _Ground(runtime, TritonServer.start(runtime, str(folder)))

        with ThreadPoolExecutor(1) as thread:
            starting = thread.submit(start)
            try:
                yield cls(folder, starting.result)
            finally:
                if starting.exception() is None:
                    starting.result().server.stop(timeout=0)  # nobody else uses it

    @property
    def description(self) -> str:
        """The server, for the report."""
        runtime = self._ground().runtime
        if runtime.embedded:
            return f"embedded tritonserver with ONNX Runtime {runtime.onnxruntime}"
        return f"{runtime.executable.name} on PATH"

    def prove(self, bundle: Bundle, interface: Interface, truth: Truth, evidence: Evidence) -> None:
        """Load the bundle with its very config and compare what is served with the truth.

        The checks go into the evidence; the verdict is its.

        Raises:
            UnavailableError: The server died or hangs.
        """
        with self._served(bundle, evidence) as client:
            if client is None:
                return
            model = client.model(bundle.model, bundle.version)

            def executed() -> tuple[int, int]:
                (counted,) = client.statistics(bundle.model, bundle.version)
                return counted.inference_count, counted.execution_count

            ours = parse(bundle.config, where="the candidate's config")
            found = differences(ours, model.config)
            detail = "; ".join(found) or "the server sees the very config that is published"
            evidence.add(Check("config", passed=not found, detail=detail))
            if check_numbers(model.infer, truth, interface.outputs, evidence).passed:
                check_batching(model.infer, truth, interface.outputs, evidence, executed)

    def replay(self, bundle: Bundle) -> None:
        """Load a bundle that was proven before and replay its samples.

        Raises:
            ValidationFailed: It is refused, or answers otherwise.
            UnavailableError: The server died or hangs.
        """
        evidence = Evidence()
        with self._served(bundle, evidence) as client:
            if client is not None:
                replay(client, bundle, evidence)
        refuse(evidence)

    @contextmanager
    def _served(self, bundle: Bundle, evidence: Evidence) -> Iterator[TritonClient | None]:
        lay_out(bundle, self._folder / bundle.model, bundle.config)
        server = self._ground().server
        server.wait_live()
        with TritonClient(server.grpc_url, timeout=CALL_SECONDS) as client:
            yield client if _load(client, server, bundle, evidence) else None
            if not client.live():
                raise UnavailableError(
                    f"the proving server died while it was asked:\n{server.log_tail(20)}",
                    hint="Run the export again; if it dies again, the model brings it down.",
                )


def _load(client: TritonClient, server: TritonServer, bundle: Bundle, evidence: Evidence) -> bool:
    try:
        client.repository.load(bundle.model, deadline=LOAD_SECONDS)
    except TritonClientError as error:
        if not client.live():
            raise UnavailableError(
                f"the proving server died while it loaded the model:\n{server.log_tail(20)}",
                hint="Is there memory enough for the model? Run the export again.",
            ) from error
        evidence.add(Check("load", passed=False, detail=" ".join(error.message.split())))
        return False
    evidence.add(Check("load", passed=True, detail="the target release's server loads the model"))
    return True


def refuse(evidence: Evidence) -> None:
    """Turn a failed verdict into the error that ends the export.

    Raises:
        ValidationFailed: The evidence did not pass.
    """
    if evidence.passed:
        return
    failed = next(check for check in evidence.checks if not check.passed)
    hint = _HINTS.get(
        failed.name, "Look at the report; export with other settings or mend the model."
    )
    kind = "target" if failed.name == "load" else "parity"
    raise ValidationFailed(
        f"what Triton serves is not what was registered: {failed.name}: {failed.detail}",
        hint=hint,
        kind=kind,
    )


_HINTS = {
    "load": "The message is the server's own; a newer --triton-release may load the model.",
    "config": "A tritonserver on PATH completes configurations itself; start it with "
    "--disable-auto-complete-config.",
    "dynamic batching": "Export with --batching off to serve the model unbatched.",
}
