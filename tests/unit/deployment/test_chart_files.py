"""The chart as a package, the files that are rendered from it, and the scripts in it."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from .chart_files import CHART, FILES, K8S, Case, ci_case, helm, of_kind, program, rendered
from .deploy_files import ROOT, checked, tool

STEP = "run `make manifests` and commit the result"


def test_the_manifests_are_fresh() -> None:
    folder = K8S / "manifests"
    fresh = checked([helm(), "template", "stlab", str(CHART), "--skip-tests"])
    assert (folder / "stlab.yaml").read_text() == fresh, STEP
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["resources"] == ["stlab.yaml"]
    # A kustomization sets the namespace.
    for item in yaml.safe_load_all(fresh):
        assert "namespace" not in item["metadata"]


def test_the_package_renders_like_the_folder(tmp_path: Path) -> None:
    checked([helm(), "package", str(CHART), "--destination", str(tmp_path)])
    (package,) = tmp_path.iterdir()
    out = checked([helm(), "template", "stlab", str(package)])
    assert list(filter(None, yaml.safe_load_all(out))) == list(rendered(Case("defaults")))
    with tarfile.open(package) as archive:
        assert not [name for name in archive.getnames() if "/ci/" in name]


def test_the_table_of_values_is_fresh() -> None:
    table = program("values_table")
    readme, values = (CHART / "README.md").read_text(), (CHART / "values.yaml").read_text()
    assert table.with_table(readme, values) == readme, STEP


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        list(program("values_table").values("a:\n  b: 1\n"))


def test_yaml_is_tidy() -> None:
    program_ = tool("yamllint", "pip install -c constraints.txt yamllint")
    config = str(K8S / ".yamllint.yaml")
    files = [
        *K8S.glob("chart/*.yaml"),
        *K8S.glob("chart/ci/*.yaml"),
        *K8S.glob("chart/files/*.yaml"),
    ]
    checked([program_, "--strict", "--config-file", config, *map(str, files)])


# ---- monitors and queries ----


def test_a_service_monitor_scrapes_a_port_once() -> None:
    items = rendered(ci_case("identity"))
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


def test_promtool_accepts_the_queries(tmp_path: Path) -> None:
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
    known = (CHART / "files" / "rules.yaml").read_text()
    for query in queries:
        for metric in re.findall(r"nv_\w+", query):
            assert metric in known


# ---- start.sh ----


def _started(tmp_path: Path, *flags: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    program_ = tmp_path / "tritonserver"
    program_.write_text('#!/bin/sh\nenv > "$0.env"\nprintf "%s\\n" "$@"\n')
    program_.chmod(0o755)
    done = subprocess.run(
        ["sh", str(ROOT / "deployment/k8s/chart/files/start.sh"), *flags],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        cwd=ROOT,  # where a * would match files
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    seen = dict(
        line.partition("=")[::2]
        for line in (tmp_path / "tritonserver.env").read_text().splitlines()
    )
    return done.stdout.splitlines(), seen


def _file_flags() -> list[str]:
    lines = (ROOT / "deployment/k8s/chart/files/server.args").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_start_sh_passes_every_flag(tmp_path: Path) -> None:
    flags, environment = _started(tmp_path, "--model-repository=/models", STLAB_TRITON_KEY="sesame")
    expected = [re.sub(r"\{(given-)?key\}$", "sesame", flag) for flag in _file_flags()]
    assert flags == [*expected, "--model-repository=/models"]
    assert "--load-model=*" in flags
    # A model must not read the key in its environment.
    assert "STLAB_TRITON_KEY" not in environment


def test_a_flag_replaces_the_same_flag_of_the_file(tmp_path: Path) -> None:
    flags, _ = _started(tmp_path, "--exit-timeout-secs=90", "--load-model=income")
    assert [flag for flag in flags if flag.startswith("--exit-timeout")] == [
        "--exit-timeout-secs=90"
    ]
    assert [flag for flag in flags if flag.startswith("--load-model")] == ["--load-model=income"]
    assert "--model-control-mode=explicit" in flags


def test_without_a_key_the_server_makes_a_random_one(tmp_path: Path) -> None:
    def key(flags: list[str]) -> str:
        # What the exporter needs stays open: it could not know the key.
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
    # The chart sets these.
    assert not {"--model-repository", "--http-port", "--grpc-port"} & set(names)


def test_only_these_protocols_are_restricted() -> None:
    flags = [f for f in _file_flags() if f.startswith("--grpc-restricted-protocol")]
    protocols, keys = zip(*(f.partition("=")[2].split(":stlab=") for f in flags), strict=True)
    assert keys == ("{key}", "{given-key}")
    assert [set(names.split(",")) for names in protocols] == [
        {"shared-memory", "trace", "logging"},
        {"model-repository"},
    ]
    assert "--model-control-mode=explicit" in _file_flags()
