"""Monitors, rules and the Grafana dashboard of a release, and that two releases do not merge."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from .chart_files import CHART, FILES, Case, Item, ci_case, of_kind, rendered
from .deploy_files import checked, tool

PROMTOOL = functools.partial(tool, "promtool", "apt-get install prometheus")
FILE: dict[str, Any] = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())


def _rules(items: tuple[Item, ...]) -> list[Item]:
    (made,) = of_kind(items, "PrometheusRule")
    return [rule for group in made["spec"]["groups"] for rule in group["rules"]]


def _released(name: str, namespace: str) -> tuple[Item, ...]:
    """Render a release with monitoring and KEDA, by its name and namespace."""
    options = ("--namespace", namespace, "--set", f"fullnameOverride={name}")
    return rendered(Case(f"{namespace}/{name}", ci_case("production").options + options))


def test_a_release_has_every_rule_of_the_file() -> None:
    made = _rules(rendered(ci_case("production")))
    names = [rule.get("alert", rule.get("record")) for rule in made]
    assert names == [
        rule.get("alert", rule.get("record")) for group in FILE["groups"] for rule in group["rules"]
    ]


def test_a_disabled_part_has_no_rules() -> None:
    for name, gone in (("local", "triton"), ("triton", "stlab-api")):
        rules = _rules(rendered(ci_case(name)))
        assert rules
        assert not [rule for rule in rules if f'{gone}"' in rule["expr"]]


def test_runbooks_are_where_the_values_say() -> None:
    for rule in _rules(rendered(ci_case("dashboard"))):
        if "alert" in rule:
            url = f"https://git.example.com/stlab/docs/alerts.md#{rule['alert'].lower()}"
            assert rule["annotations"]["runbook_url"] == url


def test_rules_select_the_jobs_of_the_monitors() -> None:
    for case in FILES:
        items = rendered(case)
        jobs = set()
        for monitor in of_kind(items, "PodMonitor", "ServiceMonitor"):
            spec = monitor["spec"]
            (endpoint,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
            (rule,) = endpoint["relabelings"]
            assert rule["targetLabel"] == "job"
            jobs.add(rule["replacement"])
        if of_kind(items, "PrometheusRule"):
            for rule in _rules(items):
                assert any(f'namespace="default",job="{job}"' in rule["expr"] for job in jobs)
                # No selector is left as the file has it.
                assert rule["expr"].count("job=") == rule["expr"].count('namespace="default",job=')


def _check_queries(folder: Path, series: dict[str, str], *queries: Item, **further: Any) -> None:
    """Let promtool evaluate queries after half an hour of these series."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"eval_time": "30m"} | query for query in queries],
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]} | further))
    checked([PROMTOOL(), "test", "rules", str(path)])


def test_releases_of_one_cluster_do_not_merge(tmp_path: Path) -> None:
    """One release fails half of its requests for a model; two others serve the same model."""
    failing, *others = [("forecast", "blue"), ("forecast", "green"), ("prices", "blue")]
    series, files = {}, []
    for release in (failing, *others):
        name, namespace = release
        (rules,) = of_kind(_released(name, namespace), "PrometheusRule")
        files.append(f"{name}-{namespace}.yaml")
        (tmp_path / files[-1]).write_text(yaml.safe_dump(rules["spec"]))
        labels = f'namespace="{namespace}",job="{name}-triton",instance="a"'
        model = f'{labels},model="m",version="1"'
        good, bad = ("0+30x60", "0+30x60") if release == failing else ("0+3000x60", "0x60")
        series |= {
            f"up{{{labels}}}": "1x60",
            f"nv_inference_request_success{{{model}}}": good,
            f'nv_inference_request_failure{{{model},reason="BACKEND"}}': bad,
        }
    found = '{alertname="TritonFailures",namespace="blue",job="forecast-triton"}'
    _check_queries(
        tmp_path,
        series,
        {
            "expr": 'count by (alertname, namespace, job) (ALERTS{alertname=~"Triton.*"})',
            "exp_samples": [{"labels": found, "value": 1}],
        },
        {
            "expr": "count by (namespace, job) (model:nv_inference_failures:ratio5m > 0.4)",
            "exp_samples": [{"labels": '{namespace="blue",job="forecast-triton"}', "value": 1}],
        },
        rule_files=files,
    )


def test_a_release_scales_on_its_own_queue(tmp_path: Path) -> None:
    """Another release's name may begin with this one's."""
    (scaled,) = of_kind(_released("stlab", "blue"), "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    series = {}
    for namespace, pod, microseconds in (
        ("blue", "stlab-triton-6d5f7c9b8-abcde", 1_000),
        ("blue", "stlab-triton-triton-6d5f7c9b8-abcde", 90_000),
        ("green", "stlab-triton-6d5f7c9b8-abcde", 90_000),
    ):
        labels = f'{{namespace="{namespace}",pod="{pod}"}}'
        series[f"nv_inference_request_success{labels}"] = "0+60x60"
        series[f"nv_inference_queue_duration_us{labels}"] = f"0+{60 * microseconds}x60"
    expected = [{"labels": "{}", "value": 1_000}]
    _check_queries(
        tmp_path, series, {"expr": trigger["metadata"]["query"], "exp_samples": expected}
    )


def test_grafana_gets_the_dashboard() -> None:
    (made,) = [
        item
        for item in of_kind(rendered(ci_case("dashboard")), "ConfigMap")
        if item["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    assert made["data"]["stlab.json"] == (CHART / "files" / "dashboard.json").read_text()
