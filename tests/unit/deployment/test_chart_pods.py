"""What an operator may rely on in every pod, whatever the values."""

from __future__ import annotations

import re

import pytest

from .chart_files import (
    EVERY,
    Case,
    Item,
    Pod,
    containers,
    of_kind,
    pods,
    rendered,
    way,
)
from .deploy_files import ROOT, pinned

_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|_KEYS?$")


# ---- containers ----


@EVERY
def test_no_container_is_root(case: Case) -> None:
    """The restricted profile, which namespaces may enforce."""
    for _, container in containers(rendered(case)):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "runAsUser" not in context
    specs = [pod.spec for pod in pods(rendered(case))]
    specs += [i["spec"]["predictor"] for i in of_kind(rendered(case), "InferenceService")]
    for spec in specs:
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        ids = {context.get(name) for name in ("runAsUser", "runAsGroup", "fsGroup")}
        assert ids == ({None} if case.name == "openshift" else {1000})
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec.get("volumes", []):
            (kind,) = set(volume) - {"name"}
            assert kind in {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


@EVERY
def test_no_pod_gets_a_token_or_service_links(case: Case) -> None:
    """A Service stlab-api would set STLAB_API_PORT to tcp://…, and the service would not start."""
    for pod in pods(rendered(case)):
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False
    for account in of_kind(rendered(case), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@EVERY
def test_pods_run_as_an_account_that_is_there(case: Case) -> None:
    made = {item["metadata"]["name"] for item in of_kind(rendered(case), "ServiceAccount")}
    for pod in pods(rendered(case)):
        assert pod.spec["serviceAccountName"] in (made or {"default"})


@EVERY
def test_images_are_pinned(case: Case) -> None:
    for _, container in containers(rendered(case)):
        image = container["image"]
        assert ":latest" not in image
        # NVIDIA's tag has two numbers and says which image it is.
        assert pinned(image), image


def test_an_image_can_be_pinned_by_its_bytes() -> None:
    for owner, container in containers(rendered(way("production"))):
        if "verify" not in owner:
            assert re.fullmatch(r"[^:@]+:[^:@]+@sha256:[0-9a-f]{64}", container["image"])


@EVERY
def test_containers_write_to_limited_volumes_alone(case: Case) -> None:
    for pod in pods(rendered(case)):
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        for container in pod.spec["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            assert "/tmp" in mounts
            for mount in mounts.values():
                volume = volumes[mount["name"]]
                if "emptyDir" in volume:
                    assert volume["emptyDir"]["sizeLimit"]
                else:
                    assert mount["readOnly"] is True
            used = {mount["name"] for mount in mounts.values()}
            assert used == set(volumes)


@EVERY
def test_memory_is_limited_and_cpu_is_not(case: Case) -> None:
    """A CPU limit would throttle; memory that is not limited takes the node along."""
    for _, container in containers(rendered(case)):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert resources["limits"]["memory"]
        assert "cpu" not in resources["limits"]


def test_gpus_are_asked_for_where_they_are_wanted() -> None:
    for name in ("production", "kserve"):
        given = [
            container["resources"]["limits"].get("nvidia.com/gpu")
            for _, container in containers(rendered(way(name)))
            if container["name"] in {"triton", "kserve-container"}
        ]
        assert given == [1]
    (triton, *_) = [p for p in pods(rendered(way("production"))) if p.part == "triton"]
    assert triton.spec["runtimeClassName"] == "nvidia"


# ---- secrets ----


@EVERY
def test_secrets_are_by_reference(case: Case) -> None:
    assert not of_kind(rendered(case), "Secret")
    for _, container in containers(rendered(case)):
        assert "envFrom" not in container
        for one in container.get("env", []):
            # A file that is mounted is no secret; what is in it is.
            if _SECRET.search(one["name"]) and not one.get("value", "").startswith("/etc/stlab/"):
                assert list(one["valueFrom"]) == ["secretKeyRef"]
                assert not one["valueFrom"]["secretKeyRef"].get("optional")
        words = " ".join([*container.get("command", []), *container.get("args", [])])
        assert "=$(" not in words


def _secrets(items: tuple[Item, ...]) -> set[str]:
    """Names of Secrets that pods ask for."""
    named = set()
    for _, container in containers(items):
        for one in container.get("env", []):
            if "valueFrom" in one:
                named.add(one["valueFrom"]["secretKeyRef"]["name"])
    for pod in pods(items):
        named |= {v["secret"]["secretName"] for v in pod.spec["volumes"] if "secret" in v}
    return named


@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("default", set()),
        ("identity", set()),
        ("production", {"mlflow", "models-reader", "triton-admin", "api-keys"}),
        ("tls", {"triton-tls"}),
        ("mtls", {"triton-tls", "triton-client", "triton-admin"}),
    ],
)
def test_which_secrets_have_to_be_there(name: str, secrets: set[str]) -> None:
    assert _secrets(rendered(way(name))) == secrets


def test_external_secrets_make_every_key_that_is_asked_for() -> None:
    items = rendered(way("external-secrets"))
    made = {
        (item["spec"]["target"]["name"], one["secretKey"])
        for item in of_kind(items, "ExternalSecret")
        for one in item["spec"]["data"]
    }
    asked = {
        (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
        for _, container in containers(items)
        for one in container["env"]
        if "valueFrom" in one
    }
    assert made == asked
    assert len({name for name, _ in made}) == 4
    for item in of_kind(items, "ExternalSecret"):
        assert item["spec"]["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}


# ---- starting and stopping ----


def _exit_timeout(triton: Pod, items: tuple[Item, ...]) -> int:
    """What Triton takes: the last flag of this name, as start.sh puts them."""
    (config,) = of_kind(items, "ConfigMap")
    flags = [*config["data"]["server.args"].splitlines(), *triton.spec["containers"][0]["args"]]
    return [int(f.partition("=")[2]) for f in flags if f.startswith("--exit-timeout-secs=")][-1]


@EVERY
def test_there_is_time_to_finish(case: Case) -> None:
    for pod in pods(rendered(case)):
        if pod.part == "verify":
            continue
        (container,) = pod.spec["containers"]
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        needed = int(seconds)
        if pod.part == "triton":
            needed += _exit_timeout(pod, rendered(case))
        else:
            told = pod.environment()
            needed += int(told["STLAB_API_DRAIN_SECONDS"]) + int(told["STLAB_API_STOP_SECONDS"])
        assert pod.spec["terminationGracePeriodSeconds"] > needed


def test_the_grace_period_follows_the_flag() -> None:
    (triton,) = [pod for pod in pods(rendered(way("production"))) if pod.part == "triton"]
    assert _exit_timeout(triton, rendered(way("production"))) == 90
    assert triton.spec["terminationGracePeriodSeconds"] == 10 + 90 + 15


def _routes() -> set[str]:
    text = (ROOT / "deployment/api/stlab_api/routes.py").read_text()
    return set(re.findall(r"Route\(\s*\"([^\"]+)\"", text))


@EVERY
def test_probes_ask_what_is_there(case: Case) -> None:
    for pod in pods(rendered(case)):
        if pod.part == "verify":
            continue
        (container,) = pod.spec["containers"]
        named = {port["name"] for port in container["ports"]}
        paths = {}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[kind]["httpGet"]
            assert asked["port"] in named
            paths[kind] = asked["path"]
        if pod.part == "triton":
            assert set(paths.values()) == {"/v2/health/live", "/v2/health/ready"}
        else:
            assert set(paths.values()) <= _routes()
        # A dependency that is away must not restart what lives.
        assert paths["livenessProbe"].endswith("live")
        assert paths["readinessProbe"].endswith("ready")


@EVERY
def test_a_rollout_waits_for_models_to_load(case: Case) -> None:
    for item in of_kind(rendered(case), "Deployment"):
        spec = item["spec"]
        probe = spec["template"]["spec"]["containers"][0]["startupProbe"]
        budget = probe["periodSeconds"] * probe["failureThreshold"]
        assert spec.get("progressDeadlineSeconds", 600) > budget
