"""The parts of the Compose topology as processes: what the images run, without images."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["address", "mlflow_server", "postgres", "program", "prometheus", "running"]

SCRIPTS = Path(sys.executable).parent


def address() -> tuple[str, int]:
    """A free port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
        return str(host), int(port)


def program(name: str, package: str) -> str:
    """Find a program of Debian's.

    Fails where it is missing: what is not checked must not look as if it were.
    """
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
    for place in sorted(places, reverse=True):
        if (place / name).is_file():
            return str(place / name)
    raise AssertionError(f"{name} is missing: apt-get install {package}")


@contextmanager
def running(
    command: Sequence[str],
    until: Callable[[], bool],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    seconds: float = 120.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends; it answers when the block begins."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdout=file,
            stderr=file,
            user=user,
            cwd=log.parent,
            start_new_session=True,  # MLflow's server starts more of them
        )
    try:
        end = time.monotonic() + seconds
        while not until():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.1)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> Callable[[], bool]:
    """Whether something says 200 at a URL."""

    def asked() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return asked


@contextmanager
def postgres(log: Path) -> Iterator[str]:
    """A PostgreSQL of its own; yields the URI of its database."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    host, port = address()
    data = str(folder / "data")
    initdb = [program("initdb", "postgresql"), "-D", data, "-A", "trust", "-U", "stlab"]
    subprocess.run(initdb, check=True, capture_output=True, user=user, cwd="/")
    ready = [program("pg_isready", "postgresql"), "-q", "-h", host, "-p", str(port)]
    command = [
        program("postgres", "postgresql"), "-D", data, "-h", host, "-p", str(port),
        "-k", str(folder),
    ]  # fmt: skip
    log.touch()
    try:
        with running(
            command, lambda: subprocess.run(ready, check=False).returncode == 0, log, user=user
        ):
            yield f"postgresql+psycopg://stlab@{host}:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(
    database: str, artifacts: str, log: Path, environment: Mapping[str, str]
) -> Iterator[str]:
    """MLflow's server, which keeps artifacts in an object store for its clients."""
    host, port = address()
    command = [
        str(SCRIPTS / "mlflow"), "server", "--host", host, "--port", str(port), "--workers", "1",
        "--backend-store-uri", database, "--artifacts-destination", artifacts,
        "--allowed-hosts", f"{host}:{port}",
    ]  # fmt: skip
    url = f"http://{host}:{port}"
    with running(command, answers(f"{url}/health"), log, environment=environment):
        yield url


@contextmanager
def prometheus(targets: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Prometheus, scraping every second."""
    host, port = address()
    jobs = "".join(
        f"  - job_name: {name}\n    static_configs: [{{targets: ['{target}']}}]\n"
        for name, target in targets.items()
    )
    config = folder / "prometheus.yaml"
    config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}")
    command = [
        program("prometheus", "prometheus"), f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={host}:{port}",
    ]  # fmt: skip
    url = f"http://{host}:{port}"
    with running(command, answers(f"{url}/-/ready"), folder / "prometheus.log"):
        yield url
