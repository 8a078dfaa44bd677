"""Values that make no sense are refused before anything is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

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


def _objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the values."""
    schema = resolved(schema)
    if schema.get("type") == "object":
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _objects(inner, f"{path}.{name}" if path else name)


def test_it_is_a_schema_and_the_defaults_pass() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    CHECK.validate(VALUES)


def test_it_knows_the_values_and_no_others() -> None:
    def paths(tree: dict[str, Any], schema: dict[str, Any], at: str = "") -> Iterator[str]:
        for name, value in tree.items():
            inner = resolved(resolved(schema)["properties"][name])
            if "properties" in inner and isinstance(value, dict) and name != "affinity":
                yield from paths(value, inner, f"{at}{name}.")
            else:
                yield f"{at}{name}"

    # What may be said, and is not by default.
    optional = {"global", "MLFLOW_TRACKING_TOKEN", "AWS_SESSION_TOKEN"}
    parts = re.compile(r"\.(resources\.(requests|limits)|affinity)(\.|$)")
    known = {path for path, _ in leaves(SCHEMA) if path.rpartition(".")[2] not in optional}
    said = set(paths(VALUES, SCHEMA))
    assert {path for path in said if not parts.search(path)} == {
        path for path in known if not parts.search(path)
    }


@pytest.mark.parametrize("path", [path for path, _ in _objects(SCHEMA)])
def test_what_it_does_not_know_is_refused(path: str) -> None:
    (schema,) = (schema for one, schema in _objects(SCHEMA) if one == path)
    if path == "global" or ".affinity." in path:
        return  # Helm's own; and what Kubernetes' schemas check
    further = schema.get("additionalProperties")
    if further is False:
        value = dict(default(path) if path else VALUES) | {"stranger": "x"}
        assert not CHECK.is_valid(_with(path, value) if path else value), path
    else:
        # A map of names that are the user's: their values have a type.
        assert isinstance(further, dict), path
        assert not CHECK.is_valid(_with(path, {"A": {"b": "c"}})), path


def _wrong(schema: dict[str, Any]) -> list[Any]:
    """Values of types that it does not take."""
    if "enum" in schema:
        return ["stranger", 1]
    if "anyOf" in schema:
        return ["-", True, []]
    kind = schema["type"]
    return {
        "string": [1, True, [], {}],
        "integer": ["one", -1, 1.5, True],
        "boolean": ["yes", "true", 1],
        "array": ["x", {}, [{"stranger": 1}], [[]]],
        "object": ["x", [], 1],
    }[kind if isinstance(kind, str) else kind[0]]


@pytest.mark.parametrize(
    ("path", "schema"),
    list(leaves(SCHEMA)),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ill_typed_values_are_refused(path: str, schema: dict[str, Any]) -> None:
    if path == "global" or ".affinity." in path or ".resources." in path:
        return
    for wrong in _wrong(schema):
        assert not CHECK.is_valid(_with(path, wrong)), (path, wrong)


@pytest.mark.parametrize(
    ("path", "value"),
    [
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
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(path: str, value: Any) -> None:
    assert CHECK.is_valid(_with(path, default(path)))
    assert not CHECK.is_valid(_with(path, value))


def test_helm_holds_to_it() -> None:
    done = run("template", Case("unknown", ("--set", "api.replica=2")))
    assert done.returncode != 0
    assert "replica is not allowed" in done.stderr


def test_a_chart_around_it_may_say_something_to_all() -> None:
    assert run("template", Case("global", ("--set", "global.team=x"))).returncode == 0


def test_no_password_is_a_value() -> None:
    """Nothing that can be set holds a secret: they are named."""
    for path, _ in leaves(SCHEMA):
        name = path.rpartition(".")[2].lower()
        if "password" in name or "token" in name or name.endswith("_key"):
            assert ".keys." in path, path


def test_what_is_tested_is_all_there_is() -> None:
    assert {path.name for path in CI} == {
        path.name for path in (ROOT / "deployment/k8s/chart/ci").iterdir()
    }
    assert len({case.name for case in CASES}) == len(CASES)
