"""Security, resources, secrets, start and stop of every pod, whatever the values."""

from __future__ import annotations

import re

from stlab_dashboard.app import _LIVE as LIVE

from .chart_files import (
    Case,
    Item,
    Pod,
    ci_case,
    containers,
    every_case,
    of_kind,
    pods,
    rendered,
)
from .deploy_files import ROOT, pinned

CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|_KEYS?$")


# ---- containers ----


@every_case
def test_no_container_is_root(case: Case) -> None:
    """Every pod meets the restricted profile, which namespaces may enforce."""
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


@every_case
def test_no_pod_gets_a_token_or_service_links(case: Case) -> None:
    """A Service stlab-api would set STLAB_API_PORT to tcp://…, which breaks the service."""
    for pod in pods(rendered(case)):
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False
    for account in of_kind(rendered(case), "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@every_case
def test_pods_run_as_an_existing_account(case: Case) -> None:
    made = {item["metadata"]["name"] for item in of_kind(rendered(case), "ServiceAccount")}
    for pod in pods(rendered(case)):
        assert pod.spec["serviceAccountName"] in (made or {"default"})


@every_case
def test_images_are_pinned(case: Case) -> None:
    for _, container in containers(rendered(case)):
        image = container["image"]
        assert ":latest" not in image
        assert pinned(image), image


def test_an_image_can_be_pinned_by_digest() -> None:
    for owner, container in containers(rendered(ci_case("production"))):
        if "verify" not in owner:
            assert re.fullmatch(r"[^:@]+:[^:@]+@sha256:[0-9a-f]{64}", container["image"])


@every_case
def test_containers_write_to_limited_volumes_alone(case: Case) -> None:
    for pod in pods(rendered(case)):
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        used = set()
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            assert "/tmp" in mounts
            for mount in mounts.values():
                volume = volumes[mount["name"]]
                if "emptyDir" in volume:
                    assert volume["emptyDir"]["sizeLimit"]
                else:
                    assert mount["readOnly"] is True
            used |= {mount["name"] for mount in mounts.values()}
        assert used == set(volumes)


@every_case
def test_memory_is_limited_and_cpu_is_not(case: Case) -> None:
    """A CPU limit throttles; unlimited memory endangers the node."""
    for _, container in containers(rendered(case)):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert resources["limits"]["memory"]
        assert "cpu" not in resources["limits"]


def test_gpus_are_requested() -> None:
    for name in ("production", "kserve"):
        given = [
            container["resources"]["limits"].get("nvidia.com/gpu")
            for _, container in containers(rendered(ci_case(name)))
            if container["name"] in {"triton", "kserve-container"}
        ]
        assert given == [1]
    (triton, *_) = [p for p in pods(rendered(ci_case("production"))) if p.part == "triton"]
    assert triton.spec["runtimeClassName"] == "nvidia"


# ---- secrets ----


@every_case
def test_secrets_are_by_reference(case: Case) -> None:
    assert not of_kind(rendered(case), "Secret")
    for _, container in containers(rendered(case)):
        assert "envFrom" not in container or case.name == "extras"
        for one in container.get("env", []):
            # A path is no secret.
            if _SECRET.search(one["name"]) and not one.get("value", "").startswith("/etc/stlab/"):
                assert list(one["valueFrom"]) == ["secretKeyRef"]
                assert not one["valueFrom"]["secretKeyRef"].get("optional")
        words = " ".join([*container.get("command", []), *container.get("args", [])])
        assert "=$(" not in words


def _secrets(items: tuple[Item, ...]) -> set[str]:
    """Return the names of the Secrets that pods require."""
    named = set()
    for _, container in containers(items):
        for one in container.get("env", []):
            if "secretKeyRef" in one.get("valueFrom", {}):
                named.add(one["valueFrom"]["secretKeyRef"]["name"])
    for pod in pods(items):
        named |= {v["secret"]["secretName"] for v in pod.spec["volumes"] if "secret" in v}
    return named


def test_which_secrets_are_required() -> None:
    for name, secrets in (
        ("default", set()),
        ("identity", set()),
        ("production", {"mlflow", "models-reader", "triton-admin", "api-keys"}),
        ("tls", {"triton-tls"}),
        ("mtls", {"triton-tls", "triton-client", "triton-admin"}),
        ("dashboard", {"api-keys", "dashboard-key"}),
        ("extras", {"proxy"}),
    ):
        assert _secrets(rendered(ci_case(name))) == secrets, name


def test_external_secrets_have_every_key_that_pods_require() -> None:
    items = rendered(ci_case("external-secrets"))
    made = {
        (item["spec"]["target"]["name"], one["secretKey"])
        for item in of_kind(items, "ExternalSecret")
        for one in item["spec"]["data"]
    }
    required = {
        (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
        for _, container in containers(items)
        for one in container["env"]
        if "valueFrom" in one
    }
    assert made == required
    assert len({name for name, _ in made}) == 4
    for item in of_kind(items, "ExternalSecret"):
        assert item["spec"]["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}


# ---- starting and stopping ----


def _exit_timeout(triton: Pod, items: tuple[Item, ...]) -> int:
    """Return what Triton uses: the last flag of this name, as start.sh orders them."""
    config = next(one for one in of_kind(items, "ConfigMap") if "server.args" in one["data"])
    flags = [*config["data"]["server.args"].splitlines(), *triton.main["args"]]
    return [int(f.partition("=")[2]) for f in flags if f.startswith("--exit-timeout-secs=")][-1]


@every_case
def test_there_is_time_to_finish(case: Case) -> None:
    for pod in pods(rendered(case)):
        if pod.part not in {"triton", "api"}:
            continue
        container = pod.main
        program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        needed = int(seconds)
        if pod.part == "triton":
            needed += _exit_timeout(pod, rendered(case))
        else:
            given = pod.environment()
            needed += int(given["STLAB_API_DRAIN_SECONDS"])
            needed += int(given["STLAB_API_STOP_SECONDS"])
        assert pod.spec["terminationGracePeriodSeconds"] > needed


def test_the_grace_period_follows_the_flag() -> None:
    (triton,) = [pod for pod in pods(rendered(ci_case("production"))) if pod.part == "triton"]
    assert _exit_timeout(triton, rendered(ci_case("production"))) == 90
    assert triton.spec["terminationGracePeriodSeconds"] == 10 + 90 + 15


def _routes() -> set[str]:
    text = (ROOT / "deployment/api/stlab_api/routes.py").read_text()
    return set(re.findall(r"@app\.get\(\s*\"([^\"]+)\"", text))


@every_case
def test_probes_use_existing_paths(case: Case) -> None:
    for pod in pods(rendered(case)):
        if pod.part == "verify":
            continue
        container = pod.main
        named = {port["name"] for port in container["ports"]}
        paths = {}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container[kind]["httpGet"]
            assert probe["port"] in named
            paths[kind] = probe["path"]
        if pod.part == "triton":
            assert set(paths.values()) == {"/v2/health/live", "/v2/health/ready"}
        elif pod.part == "api":
            assert set(paths.values()) <= _routes()
        else:
            assert set(paths.values()) == {LIVE}
        # An unavailable dependency must not restart a pod.
        assert paths["livenessProbe"].endswith("live")
        if pod.part != "dashboard":
            assert paths["readinessProbe"].endswith("ready")


@every_case
def test_a_rollout_waits_for_models_to_load(case: Case) -> None:
    for item in of_kind(rendered(case), "Deployment"):
        spec = item["spec"]
        probe = spec["template"]["spec"]["containers"][0]["startupProbe"]
        budget = probe["periodSeconds"] * probe["failureThreshold"]
        assert spec.get("progressDeadlineSeconds", 600) > budget


# ---- what values add ----


def test_values_extend_every_pod() -> None:
    parts = set()
    for pod in pods(rendered(ci_case("extras"))):
        parts.add(pod.part)
        environment = pod.environment()
        assert environment["NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
        assert pod.main["envFrom"] == [{"configMapRef": {"name": "proxy"}}]
        assert "/etc/extra" in {mount["mountPath"] for mount in pod.main["volumeMounts"]}
        assert "wait" in {one["name"] for one in pod.spec["initContainers"]}
        assert pod.labels["example.com/team"] == "forecasting"
        # Another sidecar would keep the Job from ending.
        sidecars = [one["name"] for one in pod.spec["containers"][1:]]
        assert sidecars == ([] if pod.part == "verify" else ["proxy"])
    assert parts == {"triton", "api", "dashboard", "verify"}


def test_values_add_objects_as_templates() -> None:
    added = {
        item["metadata"]["name"]: item for item in of_kind(rendered(ci_case("extras")), "ConfigMap")
    }
    assert added["stlab-extra"]["data"] == {"note": "default"}
    assert added["stlab-note"]["metadata"]["labels"]["app.kubernetes.io/component"] == "extra"


def test_every_client_trusts_the_private_ca() -> None:
    for pod in pods(rendered(ci_case("extras"))):
        (volume,) = [one for one in pod.spec["volumes"] if one["name"] == "ca"]
        assert volume["configMap"]["name"] == "corporate-ca"
        (mount,) = [one for one in pod.main["volumeMounts"] if one["name"] == "ca"]
        if pod.part == "triton":
            assert mount["mountPath"] == "/etc/ssl/certs/ca-certificates.crt"
        else:
            files = {pod.environment()[name] for name in CA_VARIABLES}
            assert files == {f"{mount['mountPath']}/{volume['configMap']['items'][0]['path']}"}
