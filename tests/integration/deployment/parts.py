"""Processes that a test starts, and how it knows that they are up."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["SCRIPTS", "answers", "postgres", "program", "running"]

SCRIPTS = Path(sys.executable).parent


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
        # As an engine does: what has not ended when its time is over is killed.
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=45)
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
def postgres(log: Path, *, port: int, user: str, password: str) -> Iterator[None]:
    """A PostgreSQL of its own, with a user, who has to give a password, and the user's database."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    (folder / "password").write_text(password)
    # It refuses to run as root.
    owner = "postgres" if os.geteuid() == 0 else None
    if owner is not None:
        for path in (folder, folder / "password"):
            os.chown(path, pwd.getpwnam(owner).pw_uid, -1)
    data, at = str(folder / "data"), ["-h", "127.0.0.1", "-p", str(port)]
    initdb = [
        program("initdb", "postgresql"), "-D", data, "-U", user, "--auth=scram-sha-256",
        f"--pwfile={folder / 'password'}",
    ]  # fmt: skip
    subprocess.run(initdb, check=True, capture_output=True, user=owner, cwd="/")
    ready = [program("pg_isready", "postgresql"), "-q", *at]
    command = [program("postgres", "postgresql"), "-D", data, *at, "-k", str(folder)]
    log.touch()
    try:
        with running(
            command, lambda: subprocess.run(ready, check=False).returncode == 0, log, user=owner
        ):
            createdb = [program("createdb", "postgresql"), *at, "-U", user, user]
            given = {**os.environ, "PGPASSWORD": password}
            subprocess.run(createdb, check=True, capture_output=True, env=given)
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
