"""The programs in the pods accept their settings, flags and commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from exporter.names import ALIAS_ORDER
from exporter.repository.url import StoreUrl
from exporter.triton.releases import DEFAULT_RELEASE
from stlab_api.settings import Settings as ApiSettings
from stlab_dashboard.settings import Settings as DashboardSettings

from .chart_files import (
    FILES,
    Case,
    Item,
    case_with,
    ci_case,
    containers,
    every_case,
    of_kind,
    options,
    pods,
    rendered,
)
from .deploy_files import CREDENTIALS, ROOT, Dockerfile

SETTINGS: dict[str, type[BaseSettings]] = {"api": ApiSettings, "dashboard": DashboardSettings}

# ---- what runs in the containers ----


def _known(settings: type[BaseSettings]) -> set[str]:
    """Return the environment variables that a program reads."""
    prefix = settings.model_config["env_prefix"]
    return {
        str(name)
        for field in settings.model_fields.values()
        for name in getattr(field.validation_alias, "choices", ())
    } | {f"{prefix}{name.upper()}" for name in settings.model_fields}


@every_case
def test_the_service_and_the_dashboard_accept_their_settings(case: Case) -> None:
    for pod in pods(rendered(case)):
        if pod.part not in SETTINGS:
            continue
        settings_class = SETTINGS[pod.part]
        with pytest.MonkeyPatch.context() as environment:
            for name, value in pod.environment().items():
                environment.setenv(name, value if isinstance(value, str) else "from-a-secret")
            settings: Any = settings_class(_env_file=None)  # type: ignore[call-arg]
        assert settings.port == pod.main["ports"][0]["containerPort"]
        assert settings.host == "0.0.0.0"
        assert settings.tracking_uri.startswith("http")
        if pod.part == "api":
            assert settings.models
            assert settings.alias in ALIAS_ORDER
        ours = {name for name in pod.environment() if name.startswith("STLAB_")}
        assert ours - _known(settings_class) <= CREDENTIALS


def test_triton_is_the_release_that_exports_target() -> None:
    (triton,) = [pod for pod in pods(rendered(ci_case("default"))) if pod.part == "triton"]
    image = triton.main["image"]
    assert image == f"nvcr.io/nvidia/tritonserver:{DEFAULT_RELEASE}-py3"


def test_images_are_those_that_are_built() -> None:
    for _, container in containers(
        rendered(case_with("all", verify__cronJob__enabled=True, dashboard__enabled=True))
    ):
        name = container["image"].rpartition("/")[2].partition(":")[0]
        if name != "tritonserver":
            built = ROOT / "deployment/docker" / f"{name.removeprefix('stlab-')}.Dockerfile"
            assert Dockerfile.read(built).stages[-1].of("USER") == ["1000:1000"]


def _run(container: Item, folder: Path, *failing: str) -> tuple[int, list[list[str]]]:
    """Run a container's command with a program `stlab` that only notes how it is called."""
    folder.mkdir()
    program = folder / "stlab"
    program.write_text(
        '#!/bin/sh\nprintf "%s " "$@" >> "$0.calls"; echo >> "$0.calls"\n'
        f'case " {" ".join(failing)} " in *" $3 "*) exit 3;; esac\n'
    )
    program.chmod(0o755)
    done = subprocess.run(
        [*container["command"], *container["args"]],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        check=False,
        timeout=60,
    )
    return done.returncode, [
        line.split() for line in Path(f"{program}.calls").read_text().splitlines()
    ]


def _parsed(words: list[str], container: Item) -> dict[str, Any]:
    """Return the parameters of a call of stlab in a container."""
    from typer.main import get_command

    from exporter.cli.app import app

    group: Any = get_command(app)
    command, *rest = words
    with pytest.MonkeyPatch.context() as environment:
        for one in container["env"]:
            environment.setenv(one["name"], one.get("value", "from-a-secret"))
        context = group.commands[command].make_context(command, rest)
    params: dict[str, Any] = context.params
    return params


def test_one_pod_verifies_every_model(tmp_path: Path) -> None:
    for case in FILES:
        verifying = [pod for pod in pods(rendered(case)) if pod.part == "verify"]
        assert bool(verifying) == (case.name != "local"), case
        for number, pod in enumerate(verifying):
            (container,) = pod.spec["containers"]
            assert pod.spec["restartPolicy"] == "Never"
            code, calls = _run(container, tmp_path / f"{case}-{number}")
            assert code == 0
            models = []
            for words in calls:
                assert words[0] == "verify"
                params = _parsed(words, container)
                assert params["alias"] in ALIAS_ORDER
                assert len(params["triton_url"]) == 1
                models.append(params["model"])
            for api in pods(rendered(case)):
                if api.part == "api":
                    assert ",".join(models) == api.environment()["MLFLOW_MODEL_NAME"]


def test_a_model_that_fails_hides_no_other(tmp_path: Path) -> None:
    (pod, *_) = [one for one in pods(rendered(ci_case("production"))) if one.part == "verify"]
    for failing in ("income", "credit-risk"):
        code, calls = _run(pod.main, tmp_path / failing, failing)
        assert code == 3
        assert len(calls) == 2


def test_triton_and_the_exporter_mean_the_same_repository() -> None:
    url, endpoint = "s3://models/triton/prod", "https://store.example.com:9000"
    (triton,) = [pod for pod in pods(rendered(ci_case("production"))) if pod.part == "triton"]
    flag = triton.main["args"][0].partition("=")[2]
    assert flag == StoreUrl.parse(url, {"AWS_ENDPOINT_URL": endpoint}).for_server()
    (triton,) = [pod for pod in pods(rendered(ci_case("identity"))) if pod.part == "triton"]
    flag = triton.main["args"][0].partition("=")[2]
    assert flag == StoreUrl.parse("s3://models/triton", {}).for_server()


def test_a_volume_is_mounted_for_reading() -> None:
    (triton,) = [pod for pod in pods(rendered(ci_case("pvc"))) if pod.part == "triton"]
    (container,) = triton.spec["containers"]
    assert "--model-repository=/models" in container["args"]
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/models"]
    assert mount == {
        "name": "models",
        "mountPath": "/models",
        "readOnly": True,
        "subPath": "triton",
    }


@pytest.mark.parametrize("mutual", [False, True])
def test_grpc_is_encrypted_with_the_secrets(mutual: bool) -> None:
    items = rendered(ci_case("mtls" if mutual else "tls"))
    (triton,) = [pod for pod in pods(items) if pod.part == "triton"]
    (container,) = triton.spec["containers"]
    flags = dict(word.partition("=")[::2] for word in container["args"])
    assert flags["--grpc-use-ssl"] == "true"
    assert flags.get("--grpc-use-ssl-mutual") == ("true" if mutual else None)
    for name, value in flags.items():
        if name.endswith(("-cert", "-key")):
            assert value in {f"/etc/stlab/tls/{key}" for key in ("tls.crt", "tls.key", "ca.crt")}
    assert ("--grpc-root-cert" in flags) == mutual
    for pod in pods(items):
        if pod.part != "triton":
            # Clients mount the authority, not the server's key.
            given = pod.environment()
            assert given["STLAB_TRITON_CA"] == "/etc/stlab/tls/ca.crt"
            volumes = {one["name"]: one for one in pod.spec["volumes"]}
            assert volumes["tls"]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
            assert "grpcs://" in str(pod.spec)
            if not mutual:
                assert not {"STLAB_TRITON_CERT", "STLAB_TRITON_KEY"} & set(given)
                continue
            assert given["STLAB_TRITON_CERT"] == "/etc/stlab/client/tls.crt"
            assert given["STLAB_TRITON_CERT_KEY"] == "/etc/stlab/client/tls.key"
            assert volumes["client"]["secret"]["secretName"] == "triton-client"
            assert given["STLAB_TRITON_KEY"]["secretKeyRef"]["name"] == "triton-admin"


def test_clients_of_triton_have_the_key() -> None:
    (local,) = pods(rendered(ci_case("local")))
    assert "STLAB_TRITON_KEY" not in local.environment()
    keyed = {pod.part for pod in pods(rendered(ci_case("production")))
             if "STLAB_TRITON_KEY" in pod.environment()}  # fmt: skip
    assert keyed == {"triton", "api", "verify"}


def test_bundles_are_pulled_before_triton_starts(tmp_path: Path) -> None:
    (triton,) = [pod for pod in pods(rendered(ci_case("bundle"))) if pod.part == "triton"]
    (init,) = triton.spec["initContainers"]
    _, calls = _run(init, tmp_path / "pull")
    parsed = [_parsed(words, init) for words in calls]
    assert {words[0] for words in calls} == {"pull"}
    assert [params["model"] for params in parsed] == ["income", "credit-risk"]
    for params in parsed:
        assert params["alias"] == "prod"
        assert f"--model-repository={params['repository']}" in triton.main["args"]
    given = {one["name"]: one for one in init["env"]}
    assert given["MLFLOW_TRACKING_USERNAME"]["valueFrom"]["secretKeyRef"]["name"] == "mlflow"
    # The working folder is next to the repository, on the same volume.
    mounts = {one["mountPath"]: one for one in init["volumeMounts"]}
    assert "readOnly" not in mounts["/repository"]
    mounts = {one["mountPath"]: one for one in triton.main["volumeMounts"]}
    assert mounts["/repository"]["readOnly"] is True
    assert not {"MLFLOW_TRACKING_URI", "AWS_ACCESS_KEY_ID"} & set(triton.environment())


# ---- the signal to scale on ----


@pytest.mark.parametrize(
    ("signal", "metric"),
    [
        ("pending", "nv_inference_pending_request_count"),
        ("queue", "nv_inference_queue_us_per_request"),
    ],
)
def test_an_hpa_scales_on_the_queue(signal: str, metric: str) -> None:
    case = Case(
        f"hpa-{signal}",
        options(
            {
                "triton.autoscaling.enabled": True,
                "triton.autoscaling.signal": signal,
                "triton.autoscaling.target": 5,
            }
        ),
    )
    (item,) = of_kind(rendered(case), "HorizontalPodAutoscaler")
    (one,) = item["spec"]["metrics"]
    assert one["pods"]["metric"]["name"] == metric
    assert one["pods"]["target"] == {"type": "AverageValue", "averageValue": "5"}
    # The README has prometheus-adapter's rule for a metric that Triton does not have.
    if signal == "queue":
        assert metric in (ROOT / "deployment/k8s/chart/README.md").read_text()


def test_kserve_runs_the_same_server() -> None:
    """The runtime has the image, the command and the limits of the Deployment."""
    (item,) = of_kind(rendered(ci_case("kserve")), "ServingRuntime")
    (runtime,) = item["spec"]["containers"]
    (pod,) = [
        pod
        for pod in pods(rendered(case_with("gpu", triton__gpu__enabled=True)))
        if pod.part == "triton"
    ]
    ours = pod.main
    for name in ("image", "command", "lifecycle", "resources", "securityContext", "volumeMounts"):
        assert runtime[name] == ours[name], name
    assert "--model-repository=/mnt/models" in runtime["args"]
    # KServe's Service has a port for each of the container's; gRPC comes first, as port 80.
    ports = {port["name"]: port["containerPort"] for port in runtime["ports"]}
    assert next(iter(ports)) == "h2c"
    declared = {"v2": ports["http1"], "grpc-v2": ports["h2c"]}
    assert list(declared) == item["spec"]["protocolVersions"]
    assert set(ports.values()) == {port["containerPort"] for port in ours["ports"]}
    assert item["spec"]["annotations"]["prometheus.kserve.io/port"] == str(ports["metrics"])
    (service,) = of_kind(rendered(ci_case("kserve")), "InferenceService")
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["runtime"] == "stlab-triton"
    assert predictor["model"]["storageUri"] == "s3://models/triton"
    assert predictor["terminationGracePeriodSeconds"] == (pod.spec["terminationGracePeriodSeconds"])
