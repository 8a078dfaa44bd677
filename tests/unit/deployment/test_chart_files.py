"""What is made of the chart, and what it has of other folders, is in step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from .chart_files import CHART, FILES, K8S, Case, Item, helm, of_kind, program, rendered, way
from .deploy_files import MONITORING, ROOT, checked, tool

STEP = "run deployment/k8s/manifests.py and commit what it writes"


def test_manifests_and_copies_are_in_step() -> None:
    made = program("manifests").made()
    for path, text in made.items():
        assert path.is_file(), f"{path.name} is missing: {STEP}"
        assert path.read_text() == text, f"{path.name} is out of step: {STEP}"
    there = {*(K8S / "manifests").glob("*"), *(CHART / "files").glob("*")}
    assert there == set(made), STEP


def test_manifests_are_for_those_without_helm() -> None:
    folder = K8S / "manifests"
    (kustomization,) = yaml.safe_load_all((folder / "kustomization.yaml").read_text())
    listed = {
        name: list(yaml.safe_load_all((folder / name).read_text()))
        for name in kustomization["resources"]
    }
    for name, items in listed.items():
        assert {f"{item['kind'].lower()}.yaml" for item in items} == {name}
        for item in items:
            text = json.dumps(item)
            assert "helm" not in text.lower()
            assert "namespace" not in item["metadata"]
    (config,) = listed["configmap.yaml"]
    assert config["data"]["start.sh"] == (ROOT / "deployment/triton/start.sh").read_text()


def test_what_is_packaged_is_what_is_tested(tmp_path: Path) -> None:
    checked([helm(), "package", str(CHART), "--destination", str(tmp_path)])
    (package,) = tmp_path.iterdir()
    out = checked([helm(), "template", "stlab", str(package)])
    assert list(filter(None, yaml.safe_load_all(out))) == list(rendered(Case("defaults")))
    with tarfile.open(package) as archive:
        assert not [name for name in archive.getnames() if "/ci/" in name]


def test_the_table_of_values_is_in_step() -> None:
    table = program("values_table")
    readme, values = (CHART / "README.md").read_text(), (CHART / "values.yaml").read_text()
    assert table.with_table(readme, values) == readme, "run deployment/k8s/values_table.py"


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        list(program("values_table").values("a:\n  b: 1\n"))


def test_yaml_is_tidy() -> None:
    program_ = tool("yamllint", "pip install -c constraints.txt yamllint")
    config = str(K8S / ".yamllint.yaml")
    files = [*K8S.glob("chart/*.yaml"), *K8S.glob("chart/ci/*.yaml"), *K8S.glob("manifests/*.yaml")]
    checked([program_, "--strict", "--config-file", config, *map(str, files)])


# ---- rules and queries ----


def _rules(item: Item) -> list[str]:
    return [rule["alert"] for group in item["spec"]["groups"] for rule in group["rules"]]


def test_rules_are_the_monitorings() -> None:
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    (made,) = of_kind(rendered(way("production")), "PrometheusRule")
    assert made["spec"]["groups"] == rules["groups"]


def test_what_is_switched_off_is_not_missed() -> None:
    for name, gone in (("local", "Triton"), ("triton", "StlabApi")):
        (made,) = of_kind(rendered(way(name)), "PrometheusRule")
        alerts = _rules(made)
        assert alerts
        assert "StlabNotScraped" not in alerts
        assert not [alert for alert in alerts if alert.startswith(gone)]


def test_targets_have_the_names_that_rules_know() -> None:
    for case in FILES:
        for monitor in of_kind(rendered(case), "PodMonitor", "ServiceMonitor"):
            spec = monitor["spec"]
            (endpoint,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
            (rule,) = endpoint["relabelings"]
            part = monitor["metadata"]["labels"]["app.kubernetes.io/component"]
            assert rule == {
                "targetLabel": "job",
                "replacement": {"triton": "triton", "api": "stlab-api"}[part],
            }


def test_a_service_monitor_finds_its_port_once() -> None:
    items = rendered(way("identity"))
    for monitor in of_kind(items, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        found = [
            service["metadata"]["name"]
            for service in of_kind(items, "Service")
            if monitor["spec"]["selector"]["matchLabels"].items()
            <= service["metadata"]["labels"].items()
            and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        ]
        assert len(found) == 1


def test_queries_are_prometheus(tmp_path: Path) -> None:
    queries = [
        trigger["metadata"]["query"]
        for case in FILES
        for item in of_kind(rendered(case), "ScaledObject")
        for trigger in item["spec"]["triggers"]
    ]
    adapter = re.search(r"metricsQuery: >-\n((?: {6}.*\n)+)", (CHART / "README.md").read_text())
    assert adapter is not None
    queries.append(
        adapter[1].replace("<<.LabelMatchers>>", 'pod="x"').replace("<<.GroupBy>>", "pod")
    )
    rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert len(rules) >= 2
    checked([tool("promtool", "apt-get install prometheus"), "check", "rules", str(path)])
    known = (MONITORING / "rules.yaml").read_text()
    for query in queries:
        for metric in re.findall(r"nv_\w+", query):
            assert metric in known


# ---- start.sh ----


def _started(tmp_path: Path, *flags: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    program_ = tmp_path / "tritonserver"
    program_.write_text('#!/bin/sh\nenv > "$0.env"\nprintf "%s\\n" "$@"\n')
    program_.chmod(0o755)
    done = subprocess.run(
        ["sh", str(ROOT / "deployment/triton/start.sh"), *flags],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        cwd=ROOT,  # where a * would find something
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = dict(
        line.partition("=")[::2]
        for line in (tmp_path / "tritonserver.env").read_text().splitlines()
    )
    return done.stdout.splitlines(), told


def _file_flags() -> list[str]:
    lines = (ROOT / "deployment/triton/server.args").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_triton_is_started_with_every_flag(tmp_path: Path) -> None:
    flags, told = _started(tmp_path, "--model-repository=/models", STLAB_TRITON_KEY="sesame")
    expected = [re.sub(r"\{(given-)?key\}$", "sesame", flag) for flag in _file_flags()]
    assert flags == [*expected, "--model-repository=/models"]
    assert "--load-model=*" in flags
    # What it loads must not read the key out of its environment.
    assert "STLAB_TRITON_KEY" not in told


def test_a_flag_that_is_given_replaces_the_files(tmp_path: Path) -> None:
    flags, _ = _started(tmp_path, "--exit-timeout-secs=90", "--load-model=income")
    assert [flag for flag in flags if flag.startswith("--exit-timeout")] == [
        "--exit-timeout-secs=90"
    ]
    assert [flag for flag in flags if flag.startswith("--load-model")] == ["--load-model=income"]
    assert "--model-control-mode=explicit" in flags


def test_without_a_key_nobody_has_one(tmp_path: Path) -> None:
    def key(flags: list[str]) -> str:
        # What the exporter needs stays open: nobody could tell it the key.
        (flag,) = [flag for flag in flags if flag.startswith("--grpc-restricted-protocol")]
        assert "model-repository" not in flag
        return flag.rpartition("=")[2]

    first, second = _started(tmp_path)[0], _started(tmp_path, STLAB_TRITON_KEY="")[0]
    assert re.fullmatch(r"[0-9a-f-]{36}", key(first))
    assert key(first) != key(second)


def test_flags_are_one_word_each() -> None:
    names = [flag.partition("=")[0] for flag in _file_flags()]
    assert all(re.fullmatch(r"--[a-z0-9-]+(=\S+)?", flag) for flag in _file_flags())
    assert len(set(names)) == len(names) - 1, "protocols are restricted by two flags"
    # They are the chart's to say.
    assert not {"--model-repository", "--http-port", "--grpc-port"} & set(names)


def test_what_callers_need_is_not_restricted() -> None:
    flags = [f for f in _file_flags() if f.startswith("--grpc-restricted-protocol")]
    protocols, keys = zip(*(f.partition("=")[2].split(":stlab=") for f in flags), strict=True)
    assert keys == ("{key}", "{given-key}")
    assert [set(names.split(",")) for names in protocols] == [
        {"shared-memory", "trace", "logging"},
        {"model-repository"},
    ]
    assert "--model-control-mode=explicit" in _file_flags()
