"""The direction of imports, read from the source of every module.

cli → pipeline → steps → bundle, errors → triton_client.types
"""

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
    assert {"exporter.pipeline", "exporter.cli", "triton_client.types"} <= set(MODULES)
    assert "triton_client" in imports("exporter.connecting")
    assert "exporter.pipeline" in imports("exporter.cli")


def test_triton_client_imports_nothing_of_the_exporter() -> None:
    assert importers("exporter", below("triton_client")) == set()


def test_nothing_imports_what_is_deployed() -> None:
    for package in ("stlab_api", "stlab_dashboard"):
        others = set(MODULES) - below(package)
        assert importers(package, others) == set()


def test_the_service_asks_the_exporter_for_facts_and_not_for_steps() -> None:
    known = {name for module in below("stlab_api") for name in imports(module)}
    ours = {name for name in known if name.startswith("exporter.")}
    facts = {
        *("arrays", "asgi", "bundle", "credentials", "errors", "names", "parity", "proven"),
        *("redaction", "registry", "seen", "settings", "system", "terminal"),
    }
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
        ("rich", ["exporter.console", "exporter.console_tables"]),
    ],
)
def test_libraries_stay_in_their_place(library: str, places: list[str]) -> None:
    assert importers(library, MODULES) - below(*places) == set()


def test_only_the_top_knows_the_steps() -> None:
    top = {"exporter.cli", "exporter.pipeline"}
    assert importers("exporter.cli", EXPORTER) <= {"exporter.cli"}
    assert importers("exporter.pipeline", EXPORTER) <= top
    assert importers("exporter.console", EXPORTER) <= {"exporter.cli"}


STEPS = {
    "registry": below("exporter.registry"),
    "sources": below("exporter.sources"),
    "formats": below("exporter.formats"),
    "repository": below("exporter.repository"),
    "activation": below("exporter.activation"),
}
# What a step may know of another: the value that it is handed, by its base alone.
HANDED_ON = {("formats", "exporter.sources.base")}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_knows_nothing_of_its_neighbours(step: str) -> None:
    for other, modules_of_other in STEPS.items():
        if other == step:
            continue
        for module in STEPS[step]:
            known = imports(module) & modules_of_other
            known -= {name for who, name in HANDED_ON if who == step}
            assert known == set(), f"{module} imports {known} of {other}"


def test_the_foundations_import_no_step() -> None:
    names = ("bundle", "errors", "interface", "names", "redaction", "terminal", "untrusted")
    foundations = {f"exporter.{name}" for name in names}
    for module in foundations:
        ours = {name for name in imports(module) if name.split(".")[0] == "exporter"}
        assert ours <= foundations, f"{module} imports {ours - foundations}"
        theirs = {name for name in imports(module) if name.split(".")[0] == "triton_client"}
        assert theirs <= {"triton_client.types"}


def test_what_concerns_the_system_knows_nothing_else() -> None:
    for module in below("exporter.system"):
        known = {
            name for name in imports(module) if name.split(".")[0] in {"exporter", "triton_client"}
        }
        assert known <= below("exporter.system"), f"{module} imports {known}"


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
    loaded = loaded_after("from stlab_api.app import create_app; create_app()")
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
    loaded = loaded_after(f"from exporter.cli import _run\nassert _run({arguments}) == 0")
    assert "typer" in loaded
    assert not loaded & {"torch", "mlflow", "numpy", "onnx", "onnxruntime", "grpc", "sqlalchemy"}
