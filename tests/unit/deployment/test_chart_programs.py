"""What runs in the pods gets settings, flags and commands that it knows."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.names import ALIAS_ORDER
from exporter.repository.url import StoreUrl
from exporter.triton.releases import DEFAULT_RELEASE
from stlab_api.settings import Settings

from .chart_files import (
    EVERY,
    FILES,
    Case,
    containers,
    of_kind,
    options,
    pods,
    rendered,
    sets,
    way,
)
from .deploy_files import CREDENTIALS, ROOT, Dockerfile, scripts

# ---- what runs in the containers ----


@EVERY
def test_the_service_takes_its_settings(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod in pods(rendered(case)):
        if pod.part != "api":
            continue
        for name, value in pod.environment().items():
            monkeypatch.setenv(name, value if isinstance(value, str) else "from-a-secret")
        settings = Settings(_env_file=None)
        assert settings.port == pod.spec["containers"][0]["ports"][0]["containerPort"]
        assert settings.host == "0.0.0.0"
        assert settings.models
        assert settings.alias in ALIAS_ORDER
        known = {
            str(name)
            for field in Settings.model_fields.values()
            for name in getattr(field.validation_alias, "choices", ())
        } | {f"STLAB_API_{name.upper()}" for name in Settings.model_fields}
        ours = {name for name in pod.environment() if name.startswith("STLAB_")}
        assert ours - known <= CREDENTIALS


def test_triton_is_the_release_that_is_exported_for() -> None:
    (triton,) = [pod for pod in pods(rendered(way("default"))) if pod.part == "triton"]
    image = triton.spec["containers"][0]["image"]
    assert image == f"nvcr.io/nvidia/tritonserver:{DEFAULT_RELEASE}-py3"


def test_images_are_those_that_are_built() -> None:
    for _, container in containers(rendered(sets("all", verify__cronJob__enabled=True))):
        name = container["image"].rpartition("/")[2].partition(":")[0]
        if name != "tritonserver":
            built = ROOT / "deployment/docker" / f"{name.removeprefix('stlab-')}.Dockerfile"
            assert Dockerfile.read(built).stages[-1].of("USER") == ["1000:1000"]


@pytest.mark.parametrize("case", FILES, ids=str)
def test_verification_runs_a_command_that_exists(case: Case) -> None:
    from typer.main import get_command

    from exporter.cli.app import app

    group: Any = get_command(app)
    items = rendered(case)
    expected = case.name != "local"
    assert any(pod.part == "verify" for pod in pods(items)) == expected
    for pod in pods(items):
        if pod.part != "verify":
            continue
        models = []
        for container in pod.spec["containers"]:
            assert container["command"] == ["stlab"]
            assert container["command"][0] in scripts()
            command, *words = container["args"]
            context = group.commands[command].make_context(command, list(words))
            assert context.params["alias"] in ALIAS_ORDER
            assert len(context.params["triton_url"]) == 1
            models.append(context.params["model"])
        for api in pods(items):
            if api.part == "api":
                assert ",".join(models) == api.environment()["MLFLOW_MODEL_NAME"]
        assert pod.spec["restartPolicy"] == "Never"


def test_the_repository_is_told_as_the_exporter_tells_it() -> None:
    """Triton and stlab must mean the same folder by it."""
    url, endpoint = "s3://models/triton/prod", "https://store.example.com:9000"
    (triton,) = [pod for pod in pods(rendered(way("production"))) if pod.part == "triton"]
    told = triton.spec["containers"][0]["args"][0].partition("=")[2]
    assert told == StoreUrl.parse(url, {"AWS_ENDPOINT_URL": endpoint}).for_server()
    (triton,) = [pod for pod in pods(rendered(way("identity"))) if pod.part == "triton"]
    told = triton.spec["containers"][0]["args"][0].partition("=")[2]
    assert told == StoreUrl.parse("s3://models/triton", {}).for_server()


def test_a_volume_is_mounted_for_reading() -> None:
    (triton,) = [pod for pod in pods(rendered(way("pvc"))) if pod.part == "triton"]
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
def test_grpc_is_encrypted_with_what_the_secret_has(mutual: bool) -> None:
    items = rendered(way("mtls" if mutual else "tls"))
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
            # They believe that authority alone, and do not see the server's key.
            told = pod.environment()
            assert told["STLAB_TRITON_CA"] == "/etc/stlab/tls/ca.crt"
            volumes = {one["name"]: one for one in pod.spec["volumes"]}
            assert volumes["tls"]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
            assert "grpcs://" in str(pod.spec)
            if not mutual:
                assert not {"STLAB_TRITON_CERT", "STLAB_TRITON_KEY"} & set(told)
                continue
            assert told["STLAB_TRITON_CERT"] == "/etc/stlab/client/tls.crt"
            assert told["STLAB_TRITON_CERT_KEY"] == "/etc/stlab/client/tls.key"
            assert volumes["client"]["secret"]["secretName"] == "triton-client"
            assert told["STLAB_TRITON_KEY"]["secretKeyRef"]["name"] == "triton-admin"


def test_the_key_is_given_to_those_who_ask_triton() -> None:
    (local,) = pods(rendered(way("local")))
    assert "STLAB_TRITON_KEY" not in local.environment()
    keyed = {pod.part for pod in pods(rendered(way("production")))
             if "STLAB_TRITON_KEY" in pod.environment()}  # fmt: skip
    assert keyed == {"triton", "api", "verify"}


def test_bundles_are_pulled_before_triton_starts() -> None:
    from typer.main import get_command

    from exporter.cli.app import app

    group: Any = get_command(app)
    (triton,) = [pod for pod in pods(rendered(way("bundle"))) if pod.part == "triton"]
    (container,) = triton.spec["containers"]
    models = []
    for init in triton.spec["initContainers"]:
        assert init["command"] == ["stlab"]
        command, *words = init["args"]
        context = group.commands[command].make_context(command, list(words))
        assert context.params["alias"] == "prod"
        models.append(context.params["model"])
        assert f"--model-repository={context.params['repository']}" in container["args"]
        told = {one["name"]: one for one in init["env"]}
        assert told["MLFLOW_TRACKING_USERNAME"]["valueFrom"]["secretKeyRef"]["name"] == "mlflow"
        # What is prepared lies beside the repository, on the same volume.
        mounts = {one["mountPath"]: one for one in init["volumeMounts"]}
        assert "readOnly" not in mounts["/repository"]
    assert models == ["income", "credit-risk"]
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
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
    # The README says how prometheus-adapter makes what Triton does not have.
    if signal == "queue":
        assert metric in (ROOT / "deployment/k8s/chart/README.md").read_text()


def test_kserve_runs_the_same_server() -> None:
    """The same image, start, probes and limits as the Deployment would have."""
    runtime = of_kind(rendered(way("kserve")), "ServingRuntime")[0]["spec"]["containers"][0]
    (pod,) = [
        pod
        for pod in pods(rendered(sets("gpu", triton__gpu__enabled=True)))
        if pod.part == "triton"
    ]
    (ours,) = pod.spec["containers"]
    for name in ("image", "command", "lifecycle", "resources", "securityContext", "volumeMounts"):
        assert runtime[name] == ours[name], name
    assert "--model-repository=/mnt/models" in runtime["args"]
    (service,) = of_kind(rendered(way("kserve")), "InferenceService")
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["runtime"] == "stlab-triton"
    assert predictor["model"]["storageUri"] == "s3://models/triton"
    assert predictor["terminationGracePeriodSeconds"] == (pod.spec["terminationGracePeriodSeconds"])
