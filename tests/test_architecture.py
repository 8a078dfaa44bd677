"""The direction of imports, read from the source of every module; docs/architecture.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    (ROOT, "exporter"),
    (ROOT, "triton_client"),
    (ROOT / "deployment" / "api", "stlab_api"),
    (ROOT / "deployment" / "dashboards", "stlab_dashboard"),
    (ROOT / "deployment" / "web", "stlab_web"),
)


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for root, package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


# The backends run inside tritonserver, in an environment of their own.
MODULES = {n: p for n, p in modules().items() if not n.startswith("exporter.triton.backends")}
EXPORTER = {name for name in MODULES if name.split(".")[0] == "exporter"}


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that can run; what only a type checker reads is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from statements(other)
        elif isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        else:
            yield from statements(child)


def imports(module: str) -> set[str]:
    """The dotted names that a module imports, wherever in it that happens."""
    found = set()
    for statement in statements(ast.parse(MODULES[module].read_text())):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{module} has a relative import"
            base = statement.module or ""
            # ``from a import b`` imports the module a, and a.b where that is one.
            names = {f"{base}.{alias.name}" for alias in statement.names}
            found |= {base} | (names & set(MODULES))
    return found


def importers(library: str, among: Iterable[str]) -> set[str]:
    return {
        module
        for module in among
        if any(name == library or name.startswith(f"{library}.") for name in imports(module))
    }


def below(*folders: str) -> set[str]:
    return {
        module
        for module in MODULES
        if any(module == folder or module.startswith(f"{folder}.") for folder in folders)
    }


def test_the_packages_are_read() -> None:
    assert {"exporter.commands.export.pipeline", "exporter.cli", "triton_client.types"} <= set(
        MODULES
    )
    assert "triton_client" in imports("exporter.triton.connection")
    assert "exporter.commands" in imports("exporter.cli.export")


def test_triton_client_imports_nothing_of_the_exporter() -> None:
    assert importers("exporter", below("triton_client")) == set()


def test_nothing_imports_what_is_deployed() -> None:
    deployed = ("stlab_api", "stlab_dashboard")
    for name in deployed:
        assert importers(name, set(MODULES) - below(name)) == set()
    assert importers("stlab_web", set(MODULES)) <= below("stlab_web", *deployed)


def test_the_product_knows_no_example() -> None:
    """The demo comes in by entry points; nothing of the product mentions it."""
    assert importers("examples", set(MODULES)) == set()
    for folder in ("deployment", "exporter", "triton_client"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".Dockerfile", ".yaml", ".toml", ".example", ".sh"}:
                assert "us_income" not in path.read_text(), path


def test_the_service_asks_the_exporter_for_facts_and_not_for_steps() -> None:
    known = {name for module in below("stlab_api") for name in imports(module)}
    ours = {name for name in known if name.startswith("exporter.")}
    facts = {"arrays", "bundle", "errors", "interface", "names", "parity", "proven_bundle"}
    facts |= {"registry", "system", "text", "triton"}
    assert {name.split(".")[1] for name in ours} <= facts
    assert importers("stlab_api.app", below("stlab_api")) == {"stlab_api.__main__"}


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("mlflow", ["exporter.registry", "exporter.sources"]),
        ("torch", ["exporter.sources", "exporter.formats"]),
        ("tensorrt", ["exporter.formats.tensorrt"]),
        ("fsspec", ["exporter.repository"]),
        ("typer", ["exporter.cli"]),
        ("rich", ["exporter.cli"]),
    ],
)
def test_libraries_stay_in_their_place(library: str, places: list[str]) -> None:
    assert importers(library, MODULES) - below(*places) == set()


GROUND = {"arrays", "bounded_text", "bundle", "errors", "interface", "names", "progress", "text"}
# Each package of the exporter with what it may import beside the ground, from the bottom up.
ARROWS: dict[str, set[str]] = {
    "system": set(),
    "triton": {"system"},
    "sources": set(),
    "parity": {"sources"},
    "formats": {"parity", "sources", "system", "triton"},
    "build": {"formats", "parity", "sources", "system", "triton"},
    "registry": {"system", "triton"},
    "repository": {"system", "triton"},
    "proven_bundle": {"parity", "registry"},
    "proving": {"formats", "parity", "repository", "system", "triton"},
    "rollout": {"parity", "registry", "repository", "triton"},
    "commands": {
        *("build", "formats", "parity", "proven_bundle", "proving", "registry", "repository"),
        *("rollout", "system", "triton"),
    },
    "cli": {"commands", "system", "triton"},
}


def package(module: str) -> str:
    """The package or module right below ``exporter``."""
    return module.split(".")[1]


def test_arrows_point_down() -> None:
    seen: set[str] = set()
    for name, known in ARROWS.items():
        assert known <= seen, f"{name} may import {known - seen}, which stands above it"
        seen.add(name)
    assert {package(module) for module in EXPORTER if "." in module} == seen | GROUND
    for module in EXPORTER - {"exporter"}:
        own = package(module)
        known = {package(name) for name in imports(module) & EXPORTER if "." in name}
        allowed = GROUND if own in GROUND else GROUND | ARROWS[own] | {own}
        assert known <= allowed, f"{module} imports {known - allowed}"


def test_the_ground_has_no_circle() -> None:
    left = {name: {package(i) for m in below(f"exporter.{name}") for i in imports(m) & EXPORTER}
            - {name} for name in GROUND}  # fmt: skip
    while left:
        free = {name for name, known in left.items() if not known & set(left)}
        assert free, f"a circle: {sorted(left)}"
        left = {name: known for name, known in left.items() if name not in free}


def test_commands_and_programs_stay_apart() -> None:
    """A command is used as a library; nothing of one command's package imports the command line."""
    assert importers("exporter.cli", EXPORTER) <= below("exporter.cli")
    for part in ("stlab_api", "stlab_dashboard", "stlab_web"):
        assert importers("exporter.cli", below(part)) == set()


def test_few_modules_lie_at_the_root() -> None:
    assert len([*(ROOT / "exporter").glob("*.py")]) <= 9


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running some code."""
    probe = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_types_of_the_client_need_no_grpc() -> None:
    loaded = loaded_after("from triton_client.types import numpy_dtype; numpy_dtype('FP32')")
    assert "triton_client" in loaded
    assert not loaded & {"grpc", "google", "tritonclient", "exporter"}


def test_the_service_starts_without_torch_and_tensorrt() -> None:
    loaded = loaded_after(
        "import os; os.environ['MLFLOW_MODEL_NAME'] = 'm'\n"
        "from stlab_api.app import create_app; create_app()"
    )
    assert "fastapi" in loaded
    assert not loaded & {"torch", "tensorrt", "sklearn", "pandas"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(
            [command, "--help"]
            for command in (
                *("doctor", "export", "infer", "prune", "pull", "rollback", "status", "verify"),
            )
        ),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    # What main() does before it ends the process.
    loaded = loaded_after(f"from exporter.cli.app import _run\nassert _run({arguments}) == 0")
    assert "typer" in loaded
    assert not loaded & {"torch", "mlflow", "numpy", "onnx", "onnxruntime", "grpc", "sqlalchemy"}
