"""Alerts and the Grafana dashboard: right, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stlab_api.metrics import Metrics

from .deploy_files import MONITORING, checked, compose, tool

INSTALL = "apt-get install prometheus"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]
}
TESTS = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "stlab.json").read_text())

# What a Triton of release 24.10 answers on /metrics for one model on a CPU, and, from
# docs/user_guide/metrics.md of the server, what it adds on a GPU.
_BY_MODEL = {"model", "version"}
TRITON: dict[str, set[str]] = {
    "nv_inference_request_success": _BY_MODEL,
    "nv_inference_request_failure": {*_BY_MODEL, "reason"},
    "nv_inference_count": _BY_MODEL,
    "nv_inference_exec_count": _BY_MODEL,
    "nv_inference_request_duration_us": _BY_MODEL,
    "nv_inference_queue_duration_us": _BY_MODEL,
    "nv_inference_compute_input_duration_us": _BY_MODEL,
    "nv_inference_compute_infer_duration_us": _BY_MODEL,
    "nv_inference_compute_output_duration_us": _BY_MODEL,
    "nv_inference_pending_request_count": _BY_MODEL,
    "nv_gpu_utilization": {"gpu_uuid"},
    "nv_gpu_memory_used_bytes": {"gpu_uuid"},
    "nv_gpu_memory_total_bytes": {"gpu_uuid"},
    "nv_gpu_power_usage": {"gpu_uuid"},
    "nv_cpu_utilization": set(),
}
_OF_PROMETHEUS: dict[str, set[str]] = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
_TARGET = {"job", "instance"}


def _of_the_service() -> dict[str, set[str]]:
    """What the service answers on /metrics once everything has happened."""
    metrics = Metrics()
    metrics.answered("POST", "/v1/models/{name}/predict", 200, "income", "3", 0.01)
    metrics.ran("income", 2)
    metrics.serves("income", "prod", 3, None)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


KNOWN = {**_of_the_service(), **TRITON, **_OF_PROMETHEUS}


def _names(expression: str) -> set[str]:
    text = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:stlab_|nv_)\w+|\bup\b|\bALERTS\b", text))


def _labels(expression: str) -> set[str]:
    text = re.sub(r'"[^"]*"', '""', expression)
    grouped = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", text)
    matched = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"\"", text)
    return {name.strip() for names in grouped for name in names.split(",")} | set(matched)


def _check(expression: str) -> None:
    names = _names(expression)
    assert names, expression
    assert names <= set(KNOWN), names - set(KNOWN)
    labels = set().union(*(KNOWN[name] for name in names)) | _TARGET
    assert _labels(expression) <= labels, expression


# ---- rules ----


def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    promtool = tool("promtool", INSTALL)
    checked([promtool, "check", "rules", str(MONITORING / "rules.yaml")])
    # Where the rules lie in the container, they lie beside it here.
    config = (MONITORING / "prometheus.yml").read_text().replace("/etc/prometheus/", "")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(MONITORING / "rules.yaml", tmp_path)
    checked([promtool, "check", "config", str(tmp_path / "prometheus.yml")])


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    checked([tool("promtool", INSTALL), "test", "rules", str(MONITORING / "rules.test.yaml")])


def test_what_is_alerted_on() -> None:
    assert set(ALERTS) == {
        "StlabApiErrors", "StlabApiSlow", "StlabApiRefuses", "StlabApiNotReady", "TritonFailures",
        "TritonQueueTime", "TritonPending", "StlabScrapeFails", "StlabNotScraped",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_what_it_is(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["for"]
    assert {"summary", "description"} == set(rule["annotations"])


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_is_tried_both_ways(name: str) -> None:
    tried = [
        bool(one["exp_alerts"])
        for test in TESTS["tests"]
        for one in test["alert_rule_test"]
        if one["alertname"] == name
    ]
    assert set(tried) == {True, False}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_is_about_metrics_that_exist(name: str) -> None:
    _check(ALERTS[name]["expr"])


def test_the_tests_are_about_metrics_that_exist() -> None:
    for test in TESTS["tests"]:
        for one in test["input_series"]:
            (name,) = _names(one["series"])
            assert _labels(one["series"]) <= KNOWN[name] | _TARGET, one["series"]


# ---- the dashboard ----


def _panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


@pytest.mark.parametrize("panel", list(_panels()), ids=lambda panel: str(panel["id"]))
def test_a_panel_shows_metrics_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m").replace("$model", ".*")
        assert "$" not in expression
        _check(expression)
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
        own = _TARGET.union(*(KNOWN[name] for name in _names(expression)))
        assert shown <= (grouped or own)


@pytest.mark.parametrize("panel", list(_panels()), ids=lambda panel: str(panel["id"]))
def test_a_panel_asks_what_prometheus_understands(panel: dict[str, Any], tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for number, target in enumerate(panel["targets"])
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panel", "rules": rules}]}))
    checked([tool("promtool", INSTALL), "check", "rules", str(path)])


def test_the_service_has_no_metric_that_nobody_sees() -> None:
    seen = {name for panel in _panels() for target in panel["targets"]
            for name in _names(target["expr"])}  # fmt: skip
    unseen = {
        name
        for name in _of_the_service()
        if name not in seen and not name.endswith(("_created", "_count", "_sum", "_bucket"))
    }
    assert not unseen


def test_panels_have_places_and_numbers_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_dashboard_is_provisioned() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((folder / "dashboards" / "stlab.yaml").read_text())["providers"]
    used = {json.dumps(panel["datasource"]) for panel in _panels()}
    assert used == {json.dumps({"type": "prometheus", "uid": source["uid"]})}
    grafana = compose()["services"]["grafana"]
    assert (
        f"../monitoring/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    )
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/stlab.json"
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_scrapes_what_compose_runs() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"][0] for job in config["scrape_configs"]
    }
    services = compose()["services"]
    assert targets["stlab-api"] == "api:8080"
    assert targets["triton"] == "triton:8002"
    assert "triton" in services["triton-cpu"]["networks"]["front"]["aliases"]
    volumes = services["prometheus"]["volumes"]
    for path in config["rule_files"]:
        assert any(volume.split(":")[1] == path for volume in volumes), path
    for name in ("stlab-api", "triton"):
        assert re.fullmatch(r".*(stlab-api|triton).*", name)
