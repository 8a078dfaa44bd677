"""The chart can be installed: every example, each switch alone, on old and new clusters."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils as kubernetes_schemas

from .chart_files import (
    CASES,
    CHART_YAML,
    CI,
    CUSTOM,
    FILES,
    SWITCHES,
    Case,
    case_with,
    ci_case,
    every_case,
    name_of,
    of_kind,
    options,
    rendered,
    run,
    run_all,
)
from .deploy_files import ROOT

VERSIONS = kubernetes_schemas.all_versions()
NEWEST = VERSIONS[-1]
# The minimum of Chart.yaml.
OLDEST = CHART_YAML["kubeVersion"].removeprefix(">=").removesuffix("-0")

# Reading a version's definitions takes longer than all that is done with them.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)


@functools.cache
def _valid(text: str, version: str) -> str:
    """Return why Kubernetes would reject an object; empty if it would not."""
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    return ""


def test_the_readme_names_the_kubernetes_versions_of_these_tests() -> None:
    assert OLDEST in VERSIONS
    assert f"{OLDEST.rpartition('.')[0]} " in (ROOT / "deployment/k8s/chart/README.md").read_text()
    assert f"{NEWEST.rpartition('.')[0]}." in (ROOT / "deployment/k8s/chart/README.md").read_text()


def test_helm_lints_every_example() -> None:
    run_all("lint", FILES)
    for case in FILES:
        done = run("lint", case)
        assert done.returncode == 0, f"{case}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_accepts_every_object(version: str) -> None:
    run_all("template", CASES)
    found = {}
    for case in CASES:
        for item in rendered(case):
            if item["kind"] not in CUSTOM:
                why = _valid(json.dumps(item, sort_keys=True), version)
                if why:
                    found[f"{case}: {name_of(item)}"] = why
    assert not found


@every_case
def test_no_object_is_defined_twice(case: Case) -> None:
    names = [name_of(item) for item in rendered(case)]
    assert len(names) == len(set(names))


def test_defaults_need_no_custom_resource() -> None:
    assert not of_kind(rendered(Case("defaults")), *CUSTOM)


def test_some_case_renders_every_custom_kind() -> None:
    made = {item["kind"] for case in CASES for item in rendered(case)}
    assert made >= CUSTOM


def test_every_switch_changes_something() -> None:
    # Of each case, what the switch requires, without the switch.
    without = {case: Case("without", case.options[:-2]) for case in SWITCHES}
    run_all("template", {*SWITCHES, *without.values()})
    for case, before in without.items():
        done = run("template", before)
        # A switch without which nothing renders has an effect.
        assert done.returncode or done.stdout != run("template", case).stdout, case


def test_a_disabled_part_renders_nothing() -> None:
    items = rendered(
        case_with("no api", api__enabled=False, verify__test=False, networkPolicy__enabled=False)
    )
    assert {item["metadata"]["name"] for item in items} == {
        "stlab",
        "stlab-triton",
        "stlab-triton-headless",
    }
    items = rendered(ci_case("local"))
    assert not [item for item in items if item["metadata"]["name"].startswith("stlab-triton")]


def test_long_names_are_truncated() -> None:
    items = rendered(
        case_with(
            "long",
            fullnameOverride="x" * 60,
            nameOverride="y" * 60,
            verify__cronJob__enabled=True,
            dashboard__enabled=True,
        )
    )
    for item in items:
        assert item["metadata"]["name"].startswith("x" * 40)
        assert len(item["metadata"]["name"]) <= (52 if item["kind"] == "CronJob" else 63)
        assert all(len(label) <= 63 for label in item["metadata"]["labels"].values())


def test_the_check_finds_what_kubernetes_would_reject() -> None:
    (item,) = (one for one in rendered(FILES[0]) if name_of(one) == "Deployment/stlab-api")
    for version in (OLDEST, NEWEST):
        wrong = json.loads(json.dumps(item))
        wrong["spec"]["replica"] = 2
        assert "replica" in _valid(json.dumps(wrong), version)
        assert _valid(json.dumps({**item, "apiVersion": "apps/v1beta1"}), version)


def test_rendering_is_deterministic() -> None:
    assert run.__wrapped__("template", FILES[0]).stdout == run("template", FILES[0]).stdout


def test_the_app_version_is_the_images() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CHART_YAML["appVersion"] == project["version"]


def test_the_readme_lists_every_example() -> None:
    text = (ROOT / "deployment/k8s/chart/README.md").read_text()
    named = set(re.findall(r"`([a-z-]+-values\.yaml)`", text))
    assert named == {path.name for path in CI} - {"default-values.yaml"}


# ---- values that cannot work together are rejected, with what to set ----

REJECTED: list[tuple[dict[str, object], str]] = [
    ({"triton.enabled": False}, "api.backend=local"),
    ({"triton.tls.enabled": True}, "triton.tls.existingSecret"),
    ({"triton.tls.mutual": True}, "triton.tls.enabled"),
    (
        {
            "triton.tls.enabled": True,
            "triton.tls.mutual": True,
            "triton.tls.existingSecret": "triton-tls",
        },
        "triton.tls.clientSecret",
    ),
    ({"tritonUrl": "triton.example.com:8001"}, "triton.enabled=false"),
    (
        {"triton.enabled": False, "api.enabled": False, "verify.cronJob.enabled": True},
        "tritonUrl",
    ),
    ({"repository.type": "pvc"}, "repository.pvc.claimName"),
    ({"repository.type": "bundle", "triton.autoscaling.enabled": True}, "s3 or pvc"),
    (
        {"triton.autoscaling.enabled": True, "triton.resources.requests": "null"},
        "triton.resources.requests.cpu",
    ),
    (
        {"api.autoscaling.enabled": True, "api.resources.requests": "null"},
        "api.resources.requests.cpu",
    ),
    (
        {
            "repository.type": "bundle",
            "triton.enabled": False,
            "tritonUrl": "stlab-predictor:8001",
            "kserve.runtime": True,
            "kserve.inferenceService.enabled": True,
        },
        "storageUri",
    ),
    ({"ingress.enabled": True}, "ingress.host"),
    ({"httpRoute.enabled": True}, "httpRoute.parentRefs"),
    ({"externalSecrets.enabled": True}, "externalSecrets.store.name"),
    ({"registry.secret.remoteKey": "stlab/mlflow"}, "externalSecrets.enabled"),
    ({"api.autoscaling.minReplicas": 20}, "minReplicas"),
    ({"triton.autoscaling.maxReplicas": 1}, "minReplicas"),
    ({"triton.strategy.maxSurge": 0}, "maxUnavailable"),
    (
        {
            "triton.autoscaling.enabled": True,
            "triton.autoscaling.by": "keda",
            "triton.autoscaling.signal": "queue",
        },
        "prometheusUrl",
    ),
    ({"kserve.runtime": True, "kserve.inferenceService.enabled": True}, "triton.enabled=false"),
    (
        {
            "triton.tls.enabled": True,
            "triton.tls.mutual": True,
            "triton.tls.existingSecret": "triton-tls",
            "api.enabled": False,
            "verify.test": False,
            "dashboard.enabled": True,
        },
        "triton.tls.clientSecret",
    ),
    ({"repository.type": "bundle", "dashboard.enabled": True}, "s3 or pvc"),
    ({"privateCA.configMap": "ca", "privateCA.existingSecret": "ca"}, "not both"),
]


def test_values_that_cannot_work_together_are_rejected() -> None:
    cases = {Case(str(given), options(given)): hint for given, hint in REJECTED}
    run_all("template", cases)
    for case, hint in cases.items():
        done = run("template", case)
        assert done.returncode != 0, case
        assert hint in done.stderr, case


@every_case
def test_every_object_is_labelled(case: Case) -> None:
    for item in rendered(case):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "stlab"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        if case.name == "production":
            assert labels["team"] == "forecasting"
