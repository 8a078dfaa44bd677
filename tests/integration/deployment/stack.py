"""The Compose file as processes: what its images run, without images.

Entrypoints, commands, environments, health checks and their order are read from compose.yaml and
the Dockerfiles, and every process runs as `containers.contained` has it. Four things are others
than there: the store is moto, which checks no keys; PostgreSQL is Debian's; Triton is the embedded
release; MLflow starts none of its job runners, which are many processes. Ports are free ones, on
loopback.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from exporter.triton.installation import cache_directory
from tests.support.embedded import embedded_tritonserver
from tests.support.moto_s3 import serving
from tests.support.ports import free_port
from tests.unit.deployment.deploy_files import (
    DOCKER,
    MONITORING,
    ROOT,
    Dockerfile,
    compose,
    example,
    interpolated,
)

from .containers import contained, possible
from .parts import SCRIPTS, postgres, program, running

__all__ = ["Stack", "wait_for"]

SECRET = "a-secret-of-many-letters"
_PORTS = {
    "postgres": (5432,), "store": (8333,), "mlflow": (5000,), "triton": (8000, 8001, 8002),
    "api": (8080,), "dashboard": (8090,), "prometheus": (9090,),
}  # fmt: skip
# Callers need none, in a laptop's Compose.
_NO_KEYS = {"STLAB_API_KEYS": "", "STLAB_DASHBOARD_API_KEY": ""}
# Entrypoints that the images of others have.
_OTHERS = {"prom/prometheus": "prometheus"}


@dataclass
class Stack:
    """A stack that is being started.

    Attributes:
        folder: Where logs, volumes and copies of files go.
        variables: What ``.env`` says, over the example.
        ports: The port of every service's port.
    """

    folder: Path
    variables: dict[str, str]
    ports: dict[tuple[str, int], int]
    _parts: ExitStack = field(default_factory=ExitStack)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, **variables: str) -> Iterator[Self]:
        """Start store and database, and make ready for the others; all end with the block.

        Args:
            folder: An empty folder.
            variables: What ``.env`` says.
        """
        ports = {(name, port): free_port() for name, all_ in _PORTS.items() for port in all_}
        given = example()
        # An empty setting that is no secret keeps its default.
        settings = ("_ALLOWED_HOSTS", "_ROOT_PATH")
        secrets = {
            name: SECRET
            for name, value in given.items()
            if not value and not name.endswith(settings)
        }
        stack = cls(folder, {**given, **secrets, **_NO_KEYS, **variables}, ports)
        (folder / "bin").mkdir()
        embedded_tritonserver(folder / "bin")
        folder.chmod(0o755)
        with stack._parts as parts:
            ports["store", 8333] = urlsplit(parts.enter_context(serving()).endpoint).port or 0
            parts.enter_context(
                postgres(
                    folder / "postgres.log",
                    port=ports["postgres", 5432],
                    user="mlflow",
                    password=stack.variables["POSTGRES_PASSWORD"],
                )
            )
            yield stack

    def url(self, name: str, port: int) -> str:
        """Where a service listens, for this process."""
        return f"http://127.0.0.1:{self.ports[name, port]}"

    def start(self, name: str, *flags: str) -> subprocess.Popen[bytes]:
        """Start a service, and return once its health check passes.

        Args:
            name: The service.
            flags: Further arguments.
        """
        log = self.folder / f"{name}.log"
        command = [*self._entrypoint(name), *self._command(name), *flags]
        check = self._rewritten(compose()["services"][name]["healthcheck"]["test"][1:])
        return self._parts.enter_context(
            running(
                self.service(name, command),
                lambda: self._passes(check),
                log,
                seconds=180,
            )
        )

    def run(
        self, name: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Do as ``docker compose run --rm NAME ARGUMENTS`` does, with ``--env`` for more."""
        command = [*self._entrypoint(name), *(arguments or self._command(name))]
        return self.execute(self.service(name, command, **environment))

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )

    def environment(self, name: str) -> dict[str, str]:
        """What a service's image and the Compose file tell it."""
        service = compose()["services"][name]
        told = {}
        for line in self._image(name, "ENV"):
            told |= {k: v for k, _, v in (word.partition("=") for word in shlex.split(line))
                     if k != "PATH"}  # fmt: skip
        given = service.get("environment", {})
        told |= {k: interpolated(str(v), self.variables) for k, v in given.items()}
        for key, value in told.items():
            if key.endswith("_PORT"):
                told[key] = str(self.ports[name, int(value)])
        if name == "mlflow":
            told["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        return {k: v for k, v in told.items() if "${" not in v}

    def inside(
        self, command: list[str], environment: Mapping[str, str], *volumes: Path
    ) -> list[str]:
        """Return the command that runs a command of a container's here.

        Args:
            command: It, with the addresses and files that it has there.
            environment: What it is told there.
            volumes: What it may write.
        """
        told = {
            # Where the programs are that the images have in them.
            "PATH": f"{self.folder / 'bin'}:{SCRIPTS}:{os.defpath}",
            "STLAB_CACHE": str(cache_directory()),
            **{name: self._rewritten([value])[0] for name, value in environment.items()},
        }
        readable = [self.folder]
        return contained(
            self._rewritten(command), told, hosts=_PORTS, readable=readable, volumes=volumes
        )

    def service(self, name: str, command: list[str], **environment: str) -> list[str]:
        """Return the command that runs a command in a service's container."""
        named = (volume.partition(":") for volume in compose()["services"][name].get("volumes", ()))
        volumes = [self.volume(target) for source, _, target in named if source[0] != "."]
        return self.inside(command, {**self.environment(name), **environment}, *volumes)

    def volume(self, target: str) -> Path:
        """Return the folder that is a volume, by where it is mounted."""
        folder = self.folder / "volumes" / target.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _entrypoint(self, name: str) -> list[str]:
        service = compose()["services"][name]
        if "entrypoint" in service:
            return list(service["entrypoint"])
        image = interpolated(service["image"], self.variables).rpartition(":")[0]
        if image in _OTHERS:
            return [program(_OTHERS[image], _OTHERS[image])]
        (entrypoint,) = self._image(name, "ENTRYPOINT")
        return list(json.loads(entrypoint))

    def _command(self, name: str) -> list[str]:
        service = compose()["services"][name]
        if "command" in service:
            return [interpolated(word, self.variables) for word in service["command"]]
        return [word for line in self._image(name, "CMD") for word in json.loads(line)]

    def _image(self, name: str, instruction: str) -> list[str]:
        build = compose()["services"][name].get("build")
        if build is None:
            return []
        return Dockerfile.read(ROOT / build["dockerfile"]).stages[-1].of(instruction)

    @cached_property
    def _replaced(self) -> dict[str, str]:
        """What stands in the files, and what is here in its place."""
        replaced = {"0.0.0.0": "127.0.0.1", "/opt/mlflow/bin/": f"{DOCKER}/"}
        replaced["/etc/stlab/triton"] = str(ROOT / "deployment" / "k8s" / "chart" / "files")
        replaced["/etc/prometheus"] = str(self.folder)
        replaced |= {f"={at}": f"={self.volume(at)}" for at in ("/prometheus", "/repository")}
        replaced["/repository/models"] = f"{self.volume('/repository')}/models"
        for (name, port), taken in self.ports.items():
            host = name if possible() else "127.0.0.1"
            replaced[f"{name}:{port}"] = f"{host}:{taken}"
            replaced[f"127.0.0.1:{port}"] = f"127.0.0.1:{taken}"
            replaced[f"--port={port}"] = f"--port={taken}"
        return replaced

    def _rewritten(self, words: list[str]) -> list[str]:
        """Return words with the ports and files of this machine."""
        pattern = re.compile("|".join(f"{re.escape(old)}(?![0-9])" for old in self._replaced))
        return [pattern.sub(lambda found: self._replaced[found[0]], word) for word in words]

    def _passes(self, check: list[str]) -> bool:
        command = [sys.executable if check[0].startswith("python") else check[0], *check[1:]]
        if check[0] == "wget":
            command = ["curl", "--fail", "--silent", "--output", "/dev/null", check[-1]]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def prometheus_files(self) -> None:
        """Lay the files of Prometheus where its command finds them; it scrapes every second."""
        rules = ROOT / "deployment" / "k8s" / "chart" / "files" / "rules.yaml"
        for path in (MONITORING / "prometheus.yml", rules):
            text = path.read_text().replace(": 15s", ": 1s").replace(": 10s", ": 1s")
            lines = self._rewritten(text.splitlines())
            (self.folder / path.name).write_text("\n".join(lines) + "\n")


def wait_for(what: Any, seconds: float = 60.0) -> Any:
    """Ask until something is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)
    return found
