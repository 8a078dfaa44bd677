"""The chart can be installed: in every way of use, each switch alone, on old and new clusters."""

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
    Item,
    name_of,
    of_kind,
    options,
    rendered,
    run,
    sets,
    way,
)
from .deploy_files import ROOT

VERSIONS = kubernetes_schemas.all_versions()
NEWEST = VERSIONS[-1]
# Chart.yaml says from which one on it can be installed.
OLDEST = CHART_YAML["kubeVersion"].removeprefix(">=").removesuffix("-0")

# Reading a version's definitions takes longer than all that is done with them.
kubernetes_schemas.schema_contents = functools.cache(kubernetes_schemas.schema_contents)


@functools.cache
def _valid(text: str, version: str) -> str:
    """Why Kubernetes would refuse an object; empty where it would not."""
    try:
        kubernetes_validate.validate(json.loads(text), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    return ""


def test_the_versions_that_are_checked() -> None:
    assert OLDEST in VERSIONS
    assert f"{OLDEST.rpartition('.')[0]} " in (ROOT / "deployment/k8s/chart/README.md").read_text()
    assert f"{NEWEST.rpartition('.')[0]}." in (ROOT / "deployment/k8s/chart/README.md").read_text()


@pytest.mark.parametrize("case", FILES, ids=str)
def test_helm_has_nothing_to_say(case: Case) -> None:
    done = run("lint", case)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kubernetes_takes_it(case: Case, version: str) -> None:
    found = {}
    for item in rendered(case):
        if item["kind"] not in CUSTOM:
            why = _valid(json.dumps(item, sort_keys=True), version)
            if why:
                found[name_of(item)] = why
    assert not found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_there_twice(case: Case) -> None:
    names = [name_of(item) for item in rendered(case)]
    assert len(names) == len(set(names))


def test_defaults_need_nothing_installed() -> None:
    assert not of_kind(rendered(Case("defaults")), *CUSTOM)


def test_every_custom_kind_is_made_by_some_case() -> None:
    made = {item["kind"] for case in CASES for item in rendered(case)}
    assert made >= CUSTOM


@pytest.mark.parametrize("case", SWITCHES, ids=str)
def test_a_switch_does_something(case: Case) -> None:
    """What is set changes what is installed, beside what had to be said with it."""
    *others, _, _ = case.options
    without = Case("without", tuple(others))
    before = run("template", without)
    after = run("template", case)
    assert after.returncode == 0
    # Where it does not go without, it does something for certain.
    assert before.returncode or before.stdout != after.stdout


def test_switched_off_is_gone() -> None:
    items = rendered(
        sets("no api", api__enabled=False, verify__test=False, networkPolicy__enabled=False)
    )
    assert {item["metadata"]["name"] for item in items} == {
        "stlab",
        "stlab-triton",
        "stlab-triton-headless",
    }
    items = rendered(way("local"))
    assert not [item for item in items if item["metadata"]["name"].startswith("stlab-triton")]


def test_long_names_stay_within_what_kubernetes_takes() -> None:
    items = rendered(
        sets(
            "long", fullnameOverride="x" * 60, verify__cronJob__enabled=True, nameOverride="y" * 60
        )
    )
    for item in items:
        assert item["metadata"]["name"].startswith("x" * 40)
        assert len(item["metadata"]["name"]) <= (52 if item["kind"] == "CronJob" else 63)
        assert all(len(label) <= 63 for label in item["metadata"]["labels"].values())


def test_the_check_finds_what_kubernetes_would_refuse() -> None:
    (item,) = (one for one in rendered(FILES[0]) if name_of(one) == "Deployment/stlab-api")
    for version in (OLDEST, NEWEST):
        wrong = json.loads(json.dumps(item))
        wrong["spec"]["replica"] = 2
        assert "replica" in _valid(json.dumps(wrong), version)
        assert _valid(json.dumps({**item, "apiVersion": "apps/v1beta1"}), version)


def test_it_is_the_same_every_time() -> None:
    case = FILES[0]
    assert run("template", case).stdout == run("template", case).stdout


def test_its_version_is_that_of_the_images() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CHART_YAML["appVersion"] == project["version"]


def test_every_way_of_use_is_in_the_readme() -> None:
    text = (ROOT / "deployment/k8s/chart/README.md").read_text()
    named = set(re.findall(r"`([a-z-]+-values\.yaml)`", text))
    assert named == {path.name for path in CI} - {"default-values.yaml"}


# ---- what cannot work is refused, with what to do ----


@pytest.mark.parametrize(
    ("given", "told"),
    [
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
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_work_is_refused(given: dict[str, object], told: str) -> None:
    done = run("template", Case("refused", options(given)))
    assert done.returncode != 0
    assert told in done.stderr


def _labels(item: Item) -> dict[str, str]:
    labels: dict[str, str] = item["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("case", FILES, ids=str)
def test_everything_is_labelled(case: Case) -> None:
    for item in rendered(case):
        labels = _labels(item)
        assert labels["app.kubernetes.io/instance"] == "stlab"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        if case.name == "production":
            assert labels["team"] == "forecasting"
