"""Servers to prove a candidate on: a private one, or a running one (``--prove-on``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from google.protobuf import json_format

from exporter.bundle import CONFIG, WARMUP, Bundle
from exporter.errors import StlabError, UsageError
from exporter.repository.model_dir import lay_out
from exporter.system.sandbox import hide_process
from exporter.triton.connection import connect, make_client
from exporter.triton.model_config import parse
from exporter.triton.releases import Release
from exporter.triton.runtime import Runtime, ensure_runtime
from exporter.triton.server import TritonServer
from triton_client import TritonClient

__all__ = ["PrivateServer", "ProvingServer", "RemoteServer", "open_server"]

# A model of many gigabytes takes minutes to load; a stuck server must not block a pipeline.
LOAD_SECONDS = 600.0
CALL_SECONDS = 300.0
# A protobuf message is limited to 2 GiB, config and names included.
_MAX_SENT = (1 << 31) - (1 << 20)


class ProvingServer(Protocol):
    """A server on which a candidate can be loaded."""

    def client(self) -> TritonClient:
        """Return a client once the server is live.

        Raises:
            UnavailableError: The server does not start.
        """

    def name(self, bundle: Bundle) -> str:
        """Return the name under which the candidate is loaded here."""

    def load(self, client: TritonClient, bundle: Bundle) -> None:
        """Load the candidate.

        Raises:
            TritonClientError: The server rejects the candidate.
            UsageError: The candidate is too large to send.
        """

    def description(self) -> str:
        """Return a description of the server for the report."""

    def log_tail(self) -> str:
        """Return the end of the server's log; empty if it is not accessible."""


class PrivateServer:
    """A server of the target release with a repository of its own, started in the background."""

    def __init__(self, folder: Path, starting: Future[tuple[Runtime, TritonServer]]) -> None:
        self._folder = folder
        self._starting = starting

    @classmethod
    @contextmanager
    def open(
        cls, folder: Path, release: Release, say: Callable[[str], None]
    ) -> Iterator[PrivateServer]:
        """Start a server in the background, while the caller converts, and stop it at the end."""
        # The server's processes run as the same user, and may run code of a model file.
        hide_process()

        def start() -> tuple[Runtime, TritonServer]:
            runtime = ensure_runtime(release, progress=say)
            server = TritonServer.start(runtime, str(folder), private=True)
            return runtime, server

        with ThreadPoolExecutor(1) as thread:
            starting = thread.submit(start)
            try:
                yield cls(folder, starting)
            finally:
                if starting.exception() is None:
                    starting.result()[1].stop(timeout=0)  # it has no other client

    def client(self) -> TritonClient:
        """See `ProvingServer.client`."""
        server = self._starting.result()[1]
        server.wait_live()
        return server.client(timeout=CALL_SECONDS)

    def name(self, bundle: Bundle) -> str:
        """See `ProvingServer.name`: the model's own name."""
        return bundle.model

    def load(self, client: TritonClient, bundle: Bundle) -> None:
        """See `ProvingServer.load`."""
        # The model's own code may have run since the server was started.
        self._starting.result()[0].check()
        lay_out(bundle, self._folder / bundle.model, bundle.config)
        client.repository.load(bundle.model, deadline=LOAD_SECONDS)

    def description(self) -> str:
        """See `ProvingServer.description`."""
        runtime = self._starting.result()[0]
        if runtime.embedded:
            return f"embedded tritonserver with ONNX Runtime {runtime.onnxruntime}"
        return f"{runtime.executable.name} on PATH"

    def log_tail(self) -> str:
        """See `ProvingServer.log_tail`."""
        return self._starting.result()[1].log_tail(20)


class RemoteServer:
    """A running server in explicit mode, such as one with production's GPU.

    The candidate is sent in the load request, so no shared disk is needed, and under a unique name,
    so it does not collide with served models.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._loaded: str | None = None

    @classmethod
    @contextmanager
    def open(cls, url: str) -> Iterator[RemoteServer]:
        """Use a server, and unload the candidate at the end."""
        server = cls(url)
        try:
            yield server
        finally:
            server._unload()

    def client(self) -> TritonClient:
        """See `ProvingServer.client`."""
        with connect(self._url, option="--prove-on"):
            return make_client(self._url, CALL_SECONDS)

    def name(self, bundle: Bundle) -> str:
        """See `ProvingServer.name`."""
        # The names of exported models do not begin with an underscore.
        return f"_stlab-proving-{bundle.model}-{bundle.sha256[:8]}"

    def load(self, client: TritonClient, bundle: Bundle) -> None:
        """See `ProvingServer.load`."""
        if bundle.size > _MAX_SENT:
            raise UsageError(
                f"the bundle's {bundle.size:,} bytes are too many to send to {self._url}",
                hint="Prove it on a private server: leave --prove-on out.",
            )
        config = parse(bundle.config, where="the candidate's config")
        config.name = self._loaded = self.name(bundle)
        # A load request cannot hold warm-up data: its files all belong to a version.
        config.ClearField("model_warmup")
        files = {
            f"{bundle.version}/{name}": (bundle.path / name).read_bytes()
            for name in bundle.files
            if name != CONFIG and not name.startswith(f"{WARMUP}/")
        }
        text = json_format.MessageToJson(config, preserving_proto_field_name=True)
        client.repository.load(config.name, config=text, files=files, deadline=LOAD_SECONDS)

    def description(self) -> str:
        """See `ProvingServer.description`."""
        return f"the Triton server at {self._url}"

    def log_tail(self) -> str:
        """See `ProvingServer.log_tail`: the log is not accessible."""
        return ""

    def _unload(self) -> None:
        if self._loaded is not None:
            with suppress(StlabError), connect(self._url) as client:
                client.repository.unload(self._loaded)


@contextmanager
def open_server(
    prove_on: str, folder: Path, release: Release, say: Callable[[str], None]
) -> Iterator[ProvingServer]:
    """Open the running server at an address, or start a private one if that is empty."""
    if prove_on:
        with RemoteServer.open(prove_on) as remote:
            yield remote
    else:
        with PrivateServer.open(folder, release, say) as private:
            yield private
