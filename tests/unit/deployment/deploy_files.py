"""Reads deployment/: Dockerfiles, the Compose file, the programs that they name."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "deployment" / "docker"
MONITORING = ROOT / "deployment" / "monitoring"
WOODPECKER = ROOT / ".woodpecker"

# Programs of the base images.
BASE_PROGRAMS = frozenset(
    {"/bin/sh", "pg_isready", "python", "python3", "tritonserver", "wget", "/usr/bin/weed"}
)
# Commands of packages that the images install.
PACKAGE_PROGRAMS = frozenset({"mlflow"})
# What `exporter.triton.credentials` reads in every client of Triton.
CREDENTIALS = frozenset(
    {"STLAB_TRITON_CA", "STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY", "STLAB_TRITON_KEY"}
)

_EXACT = re.compile(r"v?[0-9]+\.[0-9]+(?P<third>\.[0-9]+)?(-[a-z0-9.]+)*")
# These release two numbers; for other images a tag of two numbers moves.
_TWO_NUMBERS = frozenset({"chrislusf/seaweedfs", "nvcr.io/nvidia/tritonserver", "postgres"})


Value = TypeVar("Value")


def for_each(values: Iterable[Value]) -> Callable[[Callable[[Value], None]], Callable[[], None]]:
    """Make one test of a check that holds for each value; a failure names the value."""

    def decorate(check: Callable[[Value], None]) -> Callable[[], None]:
        def test() -> None:
            for value in values:
                try:
                    check(value)
                except BaseException as error:
                    error.add_note(f"for {value}")
                    raise

        test.__name__ = check.__name__
        test.__doc__ = check.__doc__
        return test

    return decorate


def scripts() -> frozenset[str]:
    """Return the commands that stlab installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return frozenset(project["project"]["scripts"])


def known_programs() -> frozenset[str]:
    """Return the programs that an image can run."""
    return scripts() | BASE_PROGRAMS | PACKAGE_PROGRAMS


def tool(name: str, how: str) -> str:
    """Return a checker's path; the test fails if it is not installed."""
    installed = Path(sys.executable).parent / name
    if installed.is_file():
        return str(installed)
    found = subprocess.run(
        ["sh", "-c", 'command -v "$1"', "sh", name], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert found, f"{name} is missing: {how}"
    return found


def checked(command: Sequence[str], **options: Any) -> str:
    """Run a checker; the test fails with its output."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def check_schema(schema: str, paths: Iterable[Path]) -> None:
    """Check files against a schema that check-jsonschema has built in."""
    program = tool("check-jsonschema", "pip install -c constraints.txt check-jsonschema")
    checked([program, "--builtin-schema", schema, *map(str, paths)])


def pinned(image: str) -> bool:
    """Tell whether an image has an exact tag: a version, or the commit of its build."""
    if image.endswith(":${CI_COMMIT_SHA}"):
        return True
    name, _, tag = image.partition("@")[0].rpartition(":")
    exact = _EXACT.fullmatch(tag)
    return bool(name and exact and (exact["third"] or name in _TWO_NUMBERS))


# ---- Compose ----


@functools.cache
def compose() -> dict[str, Any]:
    """Return the Compose file, with its anchors resolved."""
    read: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return read


_VARIABLE = re.compile(
    r"(?<!\$)(?:\$\$)*\$\{(?P<name>[A-Z][A-Z0-9_]*)(?:(?P<how>:?[-?+])(?P<what>[^}]*))?\}"
)


def variables(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, operator and operand of every variable that Compose interpolates."""
    for found in _VARIABLE.finditer(text):
        yield found["name"], found["how"] or "", found["what"] or ""


def interpolated(text: str, values: dict[str, str]) -> str:
    """Interpolate a text as Compose does."""

    def value(found: re.Match[str]) -> str:
        given, how = values.get(found["name"], ""), found["how"] or ""
        missing = not given if how.startswith(":") else found["name"] not in values
        if how.endswith("+"):
            return "" if missing else found["what"]
        return found["what"] if missing and how.endswith("-") else given

    return _VARIABLE.sub(value, text).replace("$$", "$")


def example() -> dict[str, str]:
    """Return the variables of .env.example."""
    lines = (DOCKER / ".env.example").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value for name, value in pairs}  # noqa: C416


# ---- Dockerfiles ----


@dataclass
class Stage:
    """One stage of a Dockerfile."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, kind: str) -> list[str]:
        """Return the operands of every instruction of a kind."""
        return [text for instruction, text in self.steps if instruction == kind]


@dataclass
class Dockerfile:
    """A Dockerfile: its arguments and stages."""

    path: Path
    defaults: dict[str, str]
    stages: list[Stage]

    @classmethod
    def read(cls, path: Path) -> Dockerfile:
        """Read one."""
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        defaults: dict[str, str] = {}
        stages: list[Stage] = []
        for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
            if not line.strip():
                continue
            kind, _, text = line.strip().partition(" ")
            if kind == "FROM":
                base, _, name = text.partition(" AS ")
                stages.append(Stage(base, name))
            elif stages:
                stages[-1].steps.append((kind, text))
            else:
                assert kind == "ARG", line
                name, _, value = text.partition("=")
                defaults[name] = value.strip('"')
        return cls(path, defaults, stages)

    def resolved(self, text: str) -> str:
        """Fill in the defaults of the arguments before the first stage."""
        return re.sub(r"\$\{(\w+)\}", lambda found: self.defaults[found[1]], text)

    def copied(self) -> Iterator[str]:
        """Yield what is copied from the build context."""
        for stage in self.stages:
            for text in stage.of("COPY"):
                words = text.split()
                if not words[0].startswith("--from="):
                    yield from words[:-1]


def dockerfiles() -> list[Path]:
    """Return every Dockerfile."""
    return sorted(DOCKER.glob("*.Dockerfile"))


# ---- .dockerignore ----


def _pattern(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]*\])", pattern)
    made = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    text = "".join(
        made.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts
    )
    # A pattern that matches a folder matches its contents.
    return re.compile(f"{text}(?:/.*)?")


def let_in(files: Iterable[str]) -> list[str]:
    """Return the files that .dockerignore lets into a build: the last matching pattern decides."""
    rules = [
        (not line.startswith("!"), _pattern(line.removeprefix("!")))
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def ignored(name: str) -> bool:
        return next((out for out, rule in reversed(rules) if rule.fullmatch(name)), False)

    return [name for name in files if not ignored(name)]
