"""Selectors, Services and network policies, whatever the values."""

from __future__ import annotations

from urllib.parse import urlparse

from exporter.repository.url import StoreUrl

from .chart_files import (
    Case,
    Item,
    Pod,
    case_with,
    ci_case,
    every_case,
    matches,
    name_of,
    of_kind,
    pods,
    rendered,
)

_PORTS = {"http": 80, "https": 443, "grpcs": 443}


# ---- selectors and Services ----


@every_case
def test_selectors_match_their_pods_and_no_others(case: Case) -> None:
    items = rendered(case)
    for item in items:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            selector = spec["selector"]
        elif item["kind"] in {"Deployment", "PodDisruptionBudget"}:
            selector = spec["selector"]["matchLabels"]
        elif item["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        elif item["kind"] == "PodMonitor":
            selector = spec["selector"]["matchLabels"]
        else:
            continue
        found = {pod.part for pod in pods(items) if matches(selector, pod.labels)}
        assert found == {item["metadata"]["labels"]["app.kubernetes.io/component"]}, name_of(item)
        # A Deployment's selector is immutable.
        assert set(selector) == {
            f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")
        }


@every_case
def test_spread_counts_its_own_pods(case: Case) -> None:
    for pod in pods(rendered(case)):
        if pod.part not in {"triton", "api"}:
            continue
        spread = pod.spec["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }
        for one in spread:
            assert matches(one["labelSelector"]["matchLabels"], pod.labels)


@every_case
def test_services_name_ports_of_containers(case: Case) -> None:
    items = rendered(case)
    for service in of_kind(items, "Service"):
        for pod in pods(items):
            if matches(service["spec"]["selector"], pod.labels):
                named = {port["name"] for port in pod.main["ports"]}
                for port in service["spec"]["ports"]:
                    assert port["targetPort"] in named


@every_case
def test_grpc_has_a_headless_service(case: Case) -> None:
    items = rendered(case)
    if not any(pod.part == "triton" for pod in pods(items)):
        return
    (headless,) = [s for s in of_kind(items, "Service") if s["spec"].get("clusterIP") == "None"]
    assert "grpc" in {port["name"] for port in headless["spec"]["ports"]}
    for pod in pods(items):
        url = pod.environment().get("STLAB_TRITON_URL")
        if url:
            host = urlparse(url.replace("///", "//")).hostname
            assert host == headless["metadata"]["name"]


@every_case
def test_autoscaling_owns_the_number(case: Case) -> None:
    items = rendered(case)
    scaled = set()
    for item in of_kind(items, "HorizontalPodAutoscaler", "ScaledObject"):
        target = item["spec"]["scaleTargetRef"]
        scaled.add(target["name"])
        assert target["kind"] == "Deployment"
        least = item["spec"].get("minReplicas", item["spec"].get("minReplicaCount"))
        # One may be evicted while another serves.
        assert least >= 2
    deployments = {item["metadata"]["name"]: item for item in of_kind(items, "Deployment")}
    assert scaled <= set(deployments)
    for name, item in deployments.items():
        assert ("replicas" in item["spec"]) == (name not in scaled)


@every_case
def test_a_node_can_be_drained(case: Case) -> None:
    items = rendered(case)
    budgets = {item["metadata"]["name"]: item for item in of_kind(items, "PodDisruptionBudget")}
    off = case.name.partition(".pdb.enabled=")[0] if ".pdb.enabled=" in case.name else ""
    for item in of_kind(items, "Deployment"):
        part = item["metadata"]["labels"]["app.kubernetes.io/component"]
        if part in {off, "dashboard"}:
            assert item["metadata"]["name"] not in budgets
            continue
        spec = budgets[item["metadata"]["name"]]["spec"]
        assert spec["selector"]["matchLabels"] == item["spec"]["selector"]["matchLabels"]
        assert spec["maxUnavailable"] == 1
        assert "minAvailable" not in spec


# ---- network ----


def _port(url: str) -> int:
    parsed = urlparse(url.replace("dns:///", "dns://") if "://" in url else f"grpc://{url}")
    return parsed.port or _PORTS[parsed.scheme]


def _connects(pod: Pod) -> set[int]:
    """Return the ports that a pod connects to, by its own settings."""
    ports = set()
    given = {
        one["name"]: one["value"]
        for container in [*pod.spec.get("initContainers", []), *pod.spec["containers"]]
        for one in container.get("env", [])
        if "value" in one
    }
    for name in (
        "MLFLOW_TRACKING_URI",
        "STLAB_TRITON_URL",
        "STLAB_TRITON_METRICS_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ):
        if name in given:
            ports.add(_port(given[name]))
    if "STLAB_API_URL" in given:
        # A policy sees the pods' port, not the Service's.
        ports.add(8080)
    if "STLAB_API_OIDC_ISSUER" in given:
        ports.add(_port(given["STLAB_API_OIDC_JWKS_URL"] or given["STLAB_API_OIDC_ISSUER"]))
    if given.get("STLAB_MODEL_REPOSITORY", "").startswith("s3://"):
        ports.add(_port(given.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")))
    for word in pod.main.get("args", []):
        name, _, value = word.partition("=")
        if name == "--model-repository" and value.startswith("s3://"):
            endpoint = StoreUrl.parse(value, {}).endpoint
            ports.add(_port(endpoint or "https://s3.amazonaws.com"))
    return ports


@every_case
def test_egress_allows_exactly_what_pods_connect_to(case: Case) -> None:
    items = rendered(case)
    if "networkPolicy.enabled=False" in case.name:
        assert not of_kind(items, "NetworkPolicy")
        return
    for pod in pods(items):
        (policy,) = [
            one
            for one in of_kind(items, "NetworkPolicy")
            if matches(one["spec"]["podSelector"]["matchLabels"], pod.labels)
        ]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        needed = _connects(pod)
        dns = 5353 if case.name == "openshift" else 53
        allowed = {
            (port["protocol"], port["port"])
            for rule in policy["spec"]["egress"]
            for port in rule["ports"]
        }
        named = {("UDP", dns), ("TCP", dns)} if needed else set()
        assert allowed == {("TCP", port) for port in needed} | named, policy["metadata"]["name"]
        for rule in policy["spec"]["egress"]:
            to_triton = 8001 in {port["port"] for port in rule["ports"]}
            if to_triton and not of_kind(items, "InferenceService"):
                ((peer),) = rule["to"]
                assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "triton"


def _ingress(items: tuple[Item, ...], part: str) -> dict[str, list[Item] | None]:
    """Return the peers that may reach a part, by port; None for all."""
    (policy,) = [
        one
        for one in of_kind(items, "NetworkPolicy")
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == part
    ]
    return {
        port["port"]: rule.get("from")
        for rule in policy["spec"]["ingress"]
        for port in rule["ports"]
    }


@every_case
def test_ingress_allows_the_clients_of_what_is_served(case: Case) -> None:
    items = rendered(case)
    if not of_kind(items, "NetworkPolicy"):
        return
    for pod in pods(items):
        ports = _ingress(items, pod.part)
        if pod.part == "verify":
            assert not ports
            continue
        if pod.part == "dashboard":
            assert set(ports) == ({"http"} if case.name == "dashboard" else set())
            continue
        served = {
            port["targetPort"]
            for service in of_kind(items, "Service")
            if matches(service["spec"]["selector"], pod.labels)
            for port in service["spec"]["ports"]
        }
        for monitor in of_kind(items, "PodMonitor"):
            if matches(monitor["spec"]["selector"]["matchLabels"], pod.labels):
                served |= {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
        if pod.part == "triton":
            # Clients may load and unload models.
            clients = {
                one.part for one in pods(items) if one.part != "triton" and 8001 in _connects(one)
            }
            named = case.name in {"production", "mtls"}
            if not clients and not named:
                served -= {"grpc"}
            peers = ports.get("grpc") or []
            own = {
                one["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
                for one in peers
                if "namespaceSelector" not in one
            } - {None}
            assert own == clients
            assert bool(peers) == bool(clients or named)
            assert {} not in peers
        assert set(ports) == served


def test_further_egress_ports_are_allowed() -> None:
    """A policy is about the pods' own ports: MLflow's Service has 80, its pods 5000."""
    case = case_with(
        "ports", registry__trackingUri="http://mlflow", **{"networkPolicy.egressPorts[0]": 5000}
    )
    for policy in of_kind(rendered(case), "NetworkPolicy"):
        ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert 5000 in ports
        assert (80 in ports) == (not policy["metadata"]["name"].endswith("-triton"))


def test_named_peers_reach_triton() -> None:
    ports = _ingress(rendered(ci_case("production")), "triton")
    assert ports["grpc"] is not None
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ci"}}} in (
        ports["grpc"]
    )


def test_prometheus_reaches_the_service_when_callers_are_named() -> None:
    ports = _ingress(rendered(ci_case("production")), "api")
    peers = str(ports["http"])
    assert "monitoring" in peers
    assert "ingress" in peers


# ---- Ingress and HTTPRoute ----


def test_ingress_and_route_expose_the_api_alone() -> None:
    items = (*rendered(ci_case("production")), *rendered(ci_case("identity")))
    (ingress,) = of_kind(items, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["path"] == "/v1"
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "models-tls"}]
    (route,) = of_kind(items, "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    services = {item["metadata"]["name"]: item for item in of_kind(items, "Service")}
    backend = path["backend"]["service"]
    assert backend["name"] == rule["backendRefs"][0]["name"] == "stlab-api"
    ports = {p["name"]: p["port"] for p in services["stlab-api"]["spec"]["ports"]}
    assert ports[backend["port"]["name"]] == rule["backendRefs"][0]["port"]
