"""Alerts and the Grafana dashboard: correct, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from stlab_api.metrics import Metrics

from .deploy_files import MONITORING, ROOT, checked, compose, for_each, tool

INSTALL = "apt-get install prometheus"
FILES = ROOT / "deployment" / "k8s" / "chart" / "files"
RULES = [
    rule
    for group in yaml.safe_load((FILES / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())

# The metrics of a Triton of release 24.10 with one model on a CPU, and, from
# docs/user_guide/metrics.md of the server, those of a GPU.
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
_TARGET = {"namespace", "job", "instance"}


def _of_the_service() -> dict[str, set[str]]:
    """Return the metrics of the service after one of each event."""
    metrics = Metrics()
    metrics.answered("POST", "/v1/models/{name}/predict", 200, "income", "3", 0.01)
    metrics.ran("income", 2)
    metrics.serves("income", "prod", 3, None)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.page().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


# What the recording rules make; each sums by these labels.
_RECORDED: dict[str, set[str]] = {
    rule["record"]: {"namespace", "job", "model"} for rule in RULES if "record" in rule
}
KNOWN = {**_of_the_service(), **TRITON, **_OF_PROMETHEUS, **_RECORDED}


def _names(expression: str) -> set[str]:
    text = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\bmodel:[\w:]+|(?<!:)\b(?:stlab_|nv_)\w+|\bup\b|\bALERTS\b", text))


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


def test_promtool_accepts_rules_and_configuration(tmp_path: Path) -> None:
    promtool = tool("promtool", INSTALL)
    checked([promtool, "check", "rules", str(FILES / "rules.yaml")])
    # The container has the rules in that folder; here they are next to the file.
    config = (MONITORING / "prometheus.yml").read_text().replace("/etc/prometheus/", "")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(FILES / "rules.yaml", tmp_path)
    checked([promtool, "check", "config", str(tmp_path / "prometheus.yml")])


def test_alerts_fire_when_they_should() -> None:
    checked([tool("promtool", INSTALL), "test", "rules", str(MONITORING / "rules.test.yaml")])


@for_each(ALERTS)
def test_an_alert_has_a_severity_and_a_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["for"]
    assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings


@for_each(ALERTS)
def test_ratios_and_quantiles_need_traffic(name: str) -> None:
    """Of a few requests, one decides the ratio and the quantile."""
    expression = ALERTS[name]["expr"]
    if re.search(r"ratio|mean|quantile|/", expression):
        assert "> 0.1" in expression


@for_each(ALERTS)
def test_promtool_tests_that_an_alert_fires_and_that_it_does_not(name: str) -> None:
    tried = [
        bool(one["exp_alerts"])
        for test in TESTS["tests"]
        for one in test["alert_rule_test"]
        if one["alertname"] == name
    ]
    assert set(tried) == {True, False}


@for_each(RULES)
def test_rules_are_about_metrics_that_exist(rule: dict[str, Any]) -> None:
    _check(rule["expr"])
    # Series without this label would belong to any release.
    selectors = re.findall(r"\{([^}]*)\}", rule["expr"])
    assert all("job=" in selector for selector in selectors)
    assert len(selectors) == len(re.findall(r"[a-z0-9_:]+\{", rule["expr"]))


def test_the_tests_are_about_metrics_that_exist() -> None:
    for test in TESTS["tests"]:
        for one in test["input_series"]:
            (name,) = _names(one["series"])
            assert _labels(one["series"]) <= KNOWN[name] | _TARGET, one["series"]


# ---- the dashboard ----


def _filled(query: str) -> str:
    """Fill in Grafana's variables."""
    query = query.replace("$__rate_interval", "5m")
    for variable in DASHBOARD["templating"]["list"]:
        query = query.replace(f"${variable['name']}", ".*")
    return query


def _panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


@for_each(list(_panels()))
def test_a_panel_shows_metrics_that_exist(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        expression = _filled(target["expr"])
        assert "$" not in expression
        _check(expression)
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
        own = _TARGET.union(*(KNOWN[name] for name in _names(expression)))
        assert shown <= (grouped or own)


def test_promtool_accepts_the_panels(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in _panels() for target in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": _filled(query)}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panel", "rules": rules}]}))
    checked([tool("promtool", INSTALL), "check", "rules", str(path)])


def test_some_panel_shows_every_metric_of_the_service() -> None:
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
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"../k8s/chart/files/dashboard.json:{home}:ro" in grafana["volumes"]
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
