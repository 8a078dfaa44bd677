"""Values that make no sense are rejected before anything is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from .chart_files import CASES, CI, SCHEMA, VALUES, Case, default, leaves, resolved, run
from .deploy_files import ROOT

CHECK = jsonschema.Draft7Validator(SCHEMA)


def _with(path: str, value: Any) -> dict[str, Any]:
    """The defaults, with one value changed."""
    changed: dict[str, Any] = {}
    top = changed
    here: Any = VALUES
    *folders, last = path.split(".")
    top.update(here)
    for name in folders:
        top[name] = dict(here[name])
        top, here = top[name], here[name]
    top[last] = value
    return changed


def test_the_defaults_are_valid() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    CHECK.validate(VALUES)


def test_the_schema_has_the_values_and_no_others() -> None:
    def paths(tree: dict[str, Any], schema: dict[str, Any], at: str = "") -> Iterator[str]:
        for name, value in tree.items():
            inner = resolved(resolved(schema)["properties"][name])
            if "properties" in inner and isinstance(value, dict) and name != "affinity":
                yield from paths(value, inner, f"{at}{name}.")
            else:
                yield f"{at}{name}"

    parts = re.compile(
        r"\.(resources\.(requests|limits)|affinity|secret\.keys|grafanaLabels)(\.|$)"
    )
    known = {path for path, _ in leaves(SCHEMA) if path != "global"}
    said = set(paths(VALUES, SCHEMA))
    assert {path for path in said if not parts.search(path)} == {
        path for path in known if not parts.search(path)
    }


# Maps whose names are the user's.
_OPEN = re.compile(
    r"(^|\.)(affinity|annotations|podAnnotations|env|nodeSelector|labels|\w+Labels)$"
)


def _objects(tree: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield the path of every object of the values."""
    for name, value in tree.items():
        if isinstance(value, dict) and not _OPEN.search(f"{at}{name}"):
            yield f"{at}{name}"
            yield from _objects(value, f"{at}{name}.")


def test_a_misspelt_name_is_rejected_everywhere() -> None:
    assert not CHECK.is_valid(VALUES | {"stranger": "x"})
    for path in _objects(VALUES):
        assert not CHECK.is_valid(_with(path, default(path) | {"stranger": "-"})), path


WRONG: list[tuple[str, Any]] = [
    ("triton.image.tag", "latest"),
    ("triton.image.tag", ""),
    ("api.image.tag", "latest"),
    ("exporter.image.tag", "latest"),
    ("api.image.digest", "sha256:abc"),
    ("alias", "production"),
    ("models", []),
    ("models", ["a,b"]),
    ("registry.trackingUri", "https://user:password@mlflow.example.com"),
    ("registry.trackingUri", "sqlite:///mlflow.db"),
    ("registry.secret.keys", {"PATH": "x"}),
    ("registry.secret.keys", {}),
    ("repository.type", "nfs"),
    ("repository.s3.url", "s3://bucket"),
    ("repository.s3.url", "s3://Bucket/models"),
    ("repository.s3.endpoint", "https://store.example.com"),
    ("security.runAsUser", 0),
    ("triton.args", ["--http-port=9000"]),
    ("triton.args", ["--model-control-mode=poll"]),
    ("triton.args", ["--model-repository=/other"]),
    ("triton.args", ["--log-file=/a b"]),
    ("triton.args", ["-v"]),
    ("triton.env", {"AWS_SECRET_ACCESS_KEY": "x"}),
    ("triton.env", {"DB_PASSWORD": "x"}),
    ("api.env", {"STLAB_API_KEYS": "x"}),
    ("api.env", {"lower": "x"}),
    ("api.resources.limits", {"memory": "lots"}),
    ("api.resources.limits", {"storage": "1Gi"}),
    ("api.service.port", 0),
    ("api.service.port", 65536),
    ("triton.drain.preStopSeconds", -1),
    ("triton.pdb.maxUnavailable", "half"),
    ("triton.topologySpread", [{"topologyKey": "x"}]),
    ("triton.tolerations", [{"key": "x", "efect": "NoSchedule"}]),
    ("networkPolicy.apiFrom", [{}]),
    ("networkPolicy.apiFrom", [{"podSelector": {"matchLabel": {}}}]),
    ("networkPolicy.egressTo", [{"ipBlock": {"cidr": "everywhere"}}]),
    ("httpRoute.parentRefs", [{"namespace": "x"}]),
    ("verify.cronJob.schedule", "nightly"),
    ("monitoring.interval", "15"),
    ("ingress.path", "v1"),
    ("commonLabels", {"app.kubernetes.io/name": "other"}),
    ("triton.podLabels", {"app.kubernetes.io/component": "api"}),
    ("api.extraEnv", [{"name": "DB_PASSWORD", "value": "x"}]),
    ("api.extraEnv", [{"value": "x"}]),
    ("api.extraEnvFrom", [{"secret": {"name": "x"}}]),
    ("triton.extraVolumes", [{"emptyDir": {}}]),
    ("triton.sidecars", [{"name": "x"}]),
    ("privateCA.configMap", "Not A Name"),
    ("extraObjects", {"kind": "ConfigMap"}),
    ("dashboard.apiKey.secret.keys", {"STLAB_API_KEYS": "x"}),
    ("networkPolicy.dashboardFrom", [{}]),
    ("networkPolicy.dnsPorts", []),
    ("triton.enabled", "yes"),
    ("triton.replicas", -1),
    ("triton.replicas", "two"),
    ("triton.nodeSelector", {"pool": 1}),
    ("imagePullSecrets", "registry"),
    ("monitoring.labels", ["x"]),
]


def test_values_that_make_no_sense_are_rejected() -> None:
    for path, value in WRONG:
        assert CHECK.is_valid(_with(path, default(path))), path
        assert not CHECK.is_valid(_with(path, value)), (path, value)


def test_values_that_make_sense_are_accepted() -> None:
    for path, value in (
        ("registry.secret.keys", {"MLFLOW_TRACKING_TOKEN": "token"}),
        ("security.runAsUser", None),
        ("triton.pdb.maxUnavailable", "50%"),
        ("api.extraEnv", [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]),
        ("api.extraEnv", [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {}}}]),
    ):
        assert CHECK.is_valid(_with(path, value)), path


def test_helm_enforces_the_schema() -> None:
    done = run("template", Case("unknown", ("--set", "api.replica=2")))
    assert done.returncode != 0
    assert "replica is not allowed" in done.stderr


def test_a_parent_chart_may_set_global_values() -> None:
    assert run("template", Case("global", ("--set", "global.team=x"))).returncode == 0


def test_no_value_is_a_secret() -> None:
    """Values name Secrets; none holds one."""
    for path, _ in leaves(SCHEMA):
        name = path.rpartition(".")[2].lower()
        if "password" in name or "token" in name or name.endswith("_key"):
            assert path.endswith(".secret.remoteKey"), path


def test_every_file_of_ci_is_an_example() -> None:
    assert {path.name for path in CI} == {
        path.name for path in (ROOT / "deployment/k8s/chart/ci").iterdir()
    }
    assert len({case.name for case in CASES}) == len(CASES)
