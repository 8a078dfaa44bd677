"""Kills commands on their way, and looks at what they leave.

A stage is a model that a live server serves while clients ask it without a pause. A scene is one
change of it: a command that takes an alias from one version to another. The command is killed
somewhere; what is left must be sound, and the same command again must finish.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.registry.promotion_record import open_records, promotion
from exporter.repository import open_repository
from exporter.triton.server import TritonServer
from tests.support.forked import Forked
from tests.support.models import ROWS, times
from tests.support.moto_s3 import BUCKET, S3
from tests.support.registering import RegistryFixture
from tests.support.running import start
from triton_client import TritonClient

# Counts every write on the way, and every beginning and end of a step; ends the process at one.
DRIVER = """
import os, signal, sys
at, count = int(sys.argv[1]), 0

def event():
    global count
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1

def around(owner, name, concerns=lambda *given: True):
    original = getattr(owner, name)
    def counted(*given, **named):
        if not concerns(*given):
            return original(*given, **named)
        event()
        result = original(*given, **named)
        event()
        return result
    setattr(owner, name, counted)

def of_repositories(*given):
    return any("repository" in str(path) for path in given[:2])

for name in ("rename", "replace", "link", "mkdir", "utime"):
    around(os, name, of_repositories)
from exporter.cli.output import Progress
for name in ("begin", "end"):
    around(Progress, name)
from mlflow import MlflowClient
for name in (
    "create_run", "log_batch", "set_terminated", "set_model_version_tag",
    "delete_model_version_tag", "set_registered_model_alias",
):
    around(MlflowClient, name)
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
for name in ("log_artifact", "log_artifacts"):
    around(LocalArtifactRepository, name)
from triton_client._sync.repository import Repository
for name in ("load", "unload"):
    around(Repository, name)
with __import__("contextlib").suppress(ImportError):
    from exporter.repository import object_store as store
    for name in ("create", "replace", "upload", "delete"):
        around(store.ObjectStore, name)
from exporter.cli import app as cli
exit_now = cli.exit_now
def told(code):
    print(count, file=sys.stderr, flush=True)
    exit_now(code)
cli.exit_now = told
cli.main(sys.argv[2:])
"""


@dataclass
class Watch:
    """What clients saw of a served model.

    Attributes:
        allowed: The factors that an answer may be of now.
    """

    allowed: set[float]
    calls: int = 0
    problems: list[str] = field(default_factory=list)


@contextmanager
def watching(
    server: TritonServer, model: str, allowed: set[float], pause: float
) -> Iterator[Watch]:
    """Ask a model again and again, in the background."""
    watch, over = Watch(allowed), threading.Event()

    def ask() -> None:
        with TritonClient(server.grpc_url) as client:
            while not over.is_set():
                try:
                    answer = client.model(model).infer({"x": ROWS}, deadline=20)["y"]
                except Exception as error:  # noqa: BLE001 - whatever a client would see
                    watch.problems.append(f"{type(error).__name__}: {error}")
                else:
                    if not any(np.array_equal(answer, ROWS * factor) for factor in watch.allowed):
                        watch.problems.append(f"{answer[0, 0] / ROWS[0, 0]} of {watch.allowed}")
                watch.calls += 1
                over.wait(pause)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


@dataclass
class Stage:
    """A model, its registry, the repository and the server that serves it."""

    lab: RegistryFixture
    model: str
    repository: str
    server: TritonServer
    s3: S3 | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def register(self) -> int:
        """Register a version; each one's factor is its number."""
        number = len(self.lab.client.search_model_versions(f"name = '{self.model}'")) + 1
        return self.lab.register_onnx(self.model, times(float(number)), example=ROWS)

    def command(self, verb: str, alias: str, *options: str) -> list[str]:
        urls = ["--triton-url", self.server.grpc_url, "--repository", self.repository]
        return [verb, self.model, "--alias", alias, *urls, *options, "--json"]

    def start(self, arguments: list[str], at: int | None = None) -> Forked:
        """Start a command; it ends itself at the event of that number, or is not counted."""
        counted = [] if at is None else [str(at)]
        return start(
            self.lab.folder,
            *(*counted, *arguments),
            driver=DRIVER if counted else "",
            isolated=True,
            CI="true",
            MLFLOW_TRACKING_URI=self.lab.uri,
            **self.settings,
        )

    def finish(self, arguments: list[str], at: int | None = None) -> tuple[dict[str, Any], int]:
        """Run a command to its end; returns its result, and the number of events."""
        process = self.start(arguments, at)
        output, log = process.communicate(timeout=120)
        assert process.returncode == 0, (output, log)
        return dict(json.loads(output)), int(log.splitlines()[-1]) if at is not None else 0

    def events(self, arguments: list[str]) -> int:
        """Run a command to its end and return how many events there were on its way."""
        return self.finish(arguments, at=1 << 30)[1]

    def kill(self, arguments: list[str], *, at: int | None = None, after: float = 0.0) -> bool:
        """Kill a command at an event or after seconds; returns whether it was still under way."""
        process = self.start(arguments, at)
        if at is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(after)
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
        return process.returncode == -signal.SIGKILL

    def check_sound(self, alias: str, versions: set[int]) -> None:
        """Check what a killed command left: nothing half-written, nothing unproven."""
        aliases, tags = self.lab_registry()
        named = aliases[alias]
        assert named in versions, (alias, named)
        record = promotion(tags[named], alias)
        assert tags[named]["stlab.parity"] == "passed"
        assert record is not None, tags[named]
        repository = open_repository(self.repository)
        served = repository.served_versions(self.model)
        assert set(served) <= versions, served
        for version in repository.versions(self.model):
            bundle = repository.bundle(self.model, version)
            assert bundle is not None
            repository.verify(bundle)
            assert bundle.passed_report() is not None
            if version == named:
                assert bundle.sha256 == record.bundle
        assert set(served) <= set(repository.versions(self.model))

    def check_finished(self, alias: str, version: int) -> None:
        """Check what the next command left: everything done, and no litter."""
        aliases, tags = self.lab_registry()
        assert aliases[alias] == version
        for name, named in aliases.items():
            assert set(open_records(tags, name)) == {named}, (name, aliases)
        assert open_repository(self.repository).served_versions(self.model) == (version,)
        assert self.litter() == []
        experiment = self.lab.client.get_experiment_by_name("stlab-export")
        assert experiment is not None
        assert not self.lab.client.search_runs(
            [experiment.experiment_id],
            f"attributes.status = 'RUNNING' and params.model = '{self.model}'",
        )

    def lab_registry(self) -> tuple[dict[str, int], dict[int, dict[str, str]]]:
        named = self.lab.client.get_registered_model(self.model).aliases
        found = self.lab.client.search_model_versions(f"name = '{self.model}'")
        return (
            {alias: int(version) for alias, version in named.items()},
            {int(entry.version): dict(entry.tags) for entry in found},
        )

    def litter(self) -> list[str]:
        """What no command needs any more, in the repository and beside it."""
        if self.s3 is not None:
            root = Path("/", self.repository.partition(f"/{BUCKET}/")[2])
            names = [Path("/", name) for name in self.s3.objects()]
        else:
            root = Path(self.lab.folder, self.repository)
            names = [path for path in root.parent.rglob("*") if path.is_file()]
        beside, model = root.parent / f".{root.name}.stlab" / self.model, root / self.model
        left = [
            path for path in names if beside in path.parents and not path.name.startswith("lock")
        ]
        left += [
            path
            for path in names
            if model in path.parents
            and not path.relative_to(model).parts[0].isdecimal()
            and path.relative_to(model).parts[0] not in {"config.pbtxt", "warmup"}
        ]
        return list(map(str, left))


def wait_for_servers(lab: RegistryFixture, seconds: float = 10) -> None:
    """Wait until no private server of a killed command runs any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                lines.append(path.read_bytes().decode(errors="replace"))
        if not any("tritonserver" in line and f"{lab.folder}/." in line for line in lines):
            return
        time.sleep(0.05)
    raise AssertionError("a proving server outlived its export")
