"""The Compose file, without an engine that runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from exporter.repository.url import StoreUrl
from exporter.triton.releases import DEFAULT_RELEASE
from stlab_api.settings import Settings as ApiSettings
from stlab_dashboard.settings import Settings as DashboardSettings

from .deploy_files import (
    CREDENTIALS,
    DOCKER,
    ROOT,
    Dockerfile,
    check_schema,
    compose,
    dockerfiles,
    example,
    for_each,
    interpolated,
    known_programs,
    pinned,
    variables,
)

STACK = compose()
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
each_service = for_each(SERVICES)
# Services that end.
ONCE = frozenset({"buckets", "exporter", "exporter-gpu"})
# Variables of docker compose itself.
OWN = frozenset({"COMPOSE_PROFILES"})
_SECRET = re.compile(r"(PASSWORD|SECRET|KEYS?)$")


def _values() -> dict[str, str]:
    """Return the variables of a filled-in .env."""
    return {
        name: value or ("" if "API_KEY" in name else f"filled-{name.lower()}")
        for name, value in example().items()
    }


def test_it_is_a_compose_file() -> None:
    check_schema("vendor.compose-spec", [DOCKER / "compose.yaml"])


def test_the_demo_adds_its_plugins_to_the_images_of_the_stack() -> None:
    path = ROOT / "examples" / "us_income" / "compose.yaml"
    check_schema("vendor.compose-spec", [path])
    added = yaml.safe_load(path.read_text())["services"]
    assert set(added) == {"api", "dashboard"}
    for name, service in added.items():
        build = service["build"]
        assert build["args"]["BASE"] == SERVICES[name]["image"]
        assert service["image"] != SERVICES[name]["image"]
        # Compose resolves it from the first file's folder.
        assert (DOCKER / build["context"] / build["dockerfile"]).resolve().is_file()


# ---- images and programs ----


@each_service
def test_images_are_pinned_or_built_here(name: str) -> None:
    service = SERVICES[name]
    image = interpolated(service["image"], {})
    assert pinned(image), image
    if "build" in service:
        assert image.startswith("stlab-")
        built = (DOCKER / service["build"]["context"]).resolve()
        assert built == ROOT
        dockerfile = ROOT / service["build"]["dockerfile"]
        assert dockerfile in dockerfiles()
        assert image.partition(":")[0] == f"stlab-{dockerfile.name.partition('.')[0]}"
        read = Dockerfile.read(dockerfile)
        known = set(read.defaults) | {
            text.partition("=")[0] for stage in read.stages for text in stage.of("ARG")
        }
        assert set(service["build"].get("args", {})) <= known
    else:
        assert not image.startswith("stlab-")


def test_images_with_the_same_name_are_built_alike() -> None:
    built: dict[str, Any] = {}
    for service in SERVICES.values():
        if "build" in service:
            assert built.setdefault(service["image"], service["build"]) == service["build"]


def test_triton_is_the_release_that_exports_target() -> None:
    assert example()["TRITON_RELEASE"] == DEFAULT_RELEASE
    for name in ("triton-cpu", "triton-gpu"):
        image = interpolated(SERVICES[name]["image"], {})
        assert image == f"nvcr.io/nvidia/tritonserver:{DEFAULT_RELEASE}-py3"


@each_service
def test_programs_exist(name: str) -> None:
    service = SERVICES[name]
    programs = [service["entrypoint"][0]] if "entrypoint" in service else []
    if "test" in service["healthcheck"]:
        how, program, *_ = service["healthcheck"]["test"]
        assert how == "CMD"
        programs.append(program)
    assert set(programs) <= known_programs()
    if name == "exporter":
        assert service["command"] == ["doctor"]
    if name == "mlflow":
        assert service["command"][0] == "server"


# ---- what a process may do ----


@each_service
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9][0-9]*:[0-9]+", service["user"])
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert not {"cap_add", "devices", "ipc", "network_mode", "pid", "privileged"} & set(service)


@each_service
def test_only_data_is_writable(name: str) -> None:
    service = SERVICES[name]
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert (DOCKER / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in STACK["volumes"]
            assert not mode
            assert target in {"/data", "/prometheus", "/var/lib/grafana", "/var/lib/postgresql"}
    for config in service.get("configs", []):
        assert config["source"] in STACK["configs"]


def test_every_volume_and_config_is_used_and_there() -> None:
    used = {volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])}
    assert set(STACK["volumes"]) <= used
    configs = {one["source"] for service in SERVICES.values() for one in service.get("configs", [])}
    assert configs == set(STACK["configs"])
    # Compose copies other configs and secrets into the root, which is read-only (issue 12031).
    for config in STACK["configs"].values():
        assert list(config) == ["file"]
        assert (DOCKER / config["file"]).is_file()
    assert "secrets" not in STACK


def test_ports_are_on_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    hosts = set()
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-[0-9]+\}:[0-9]+", port), port
        hosts.add(interpolated(port, {}).split(":")[1])
    # Both Tritons have the same port; one of them runs.
    assert len(hosts) == len(published) - 1


def test_database_and_store_are_internal() -> None:
    assert STACK["networks"]["data"]["internal"] is True
    for name in ("postgres", "store", "buckets"):
        assert list(SERVICES[name]["networks"]) == ["data"]
        assert "ports" not in SERVICES[name]


# ---- memory ----

_UNITS = {"m": 1, "g": 1024}


def _megabytes(size: str) -> int:
    return int(size[:-1]) * _UNITS[size[-1]]


def test_the_limits_fit_the_machine_of_the_docs() -> None:
    """One Triton, one export and everything else at once, and 1 GB for the machine itself."""
    docs = (ROOT / "docs" / "deployment.md").read_text()
    machine = re.search(r"Docker 25 .*?, ([0-9]+) GB,", docs)
    assert machine is not None
    limits = {
        name: _megabytes(interpolated(service["mem_limit"], {}))
        for name, service in SERVICES.items()
        # buckets ends before the others start; of the two variants one runs.
        if name not in {"buckets", "triton-gpu", "exporter-gpu"}
    }
    assert sum(limits.values()) + 1024 <= int(machine[1]) * 1024
    for name, service in SERVICES.items():
        # A tmpfs without a size may take half of the machine; the limit of the container holds.
        sizes = re.findall(r"size=([^,]+)", " ".join(service["tmpfs"]))
        for size in sizes:
            limit = _megabytes(interpolated(service["mem_limit"], {}))
            assert 2 * _megabytes(interpolated(size, {})) <= limit, name


# ---- order ----


def _profiles(name: str) -> set[str]:
    return set(SERVICES[name].get("profiles", []))


@each_service
def test_a_service_starts_when_what_it_needs_is_healthy(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        other = SERVICES[needed]
        if needed in ONCE:
            assert how["condition"] == "service_completed_successfully"
            assert other["restart"] == "no"
        else:
            assert how["condition"] == "service_healthy"
            assert "test" in other["healthcheck"]
        # A dependency with a profile is optional.
        assert _profiles(needed) <= _profiles(name) or how.get("required") is False


@each_service
def test_every_lasting_service_has_a_health_check(name: str) -> None:
    health = SERVICES[name]["healthcheck"]
    assert health == {"disable": True} if name in ONCE else {"interval", "timeout"} <= set(health)


def _needs(name: str, seen: tuple[str, ...] = ()) -> Iterator[str]:
    assert name not in seen, f"a circle: {seen}"
    for needed in SERVICES[name].get("depends_on", {}):
        yield needed
        yield from _needs(needed, (*seen, name))


def test_the_order_has_no_circle_and_holds() -> None:
    needs = {name: set(_needs(name)) for name in SERVICES}
    assert {"store"} <= needs["buckets"]
    assert {"postgres", "store", "buckets"} <= needs["mlflow"]
    for triton in ("triton-cpu", "triton-gpu"):
        assert {"store", "buckets"} <= needs[triton]
        assert triton in needs["api"]
    assert {"mlflow", "api"} <= needs["dashboard"]
    assert {"api"} <= needs["prometheus"]
    assert {"prometheus"} <= needs["grafana"]


def test_profiles() -> None:
    profiles = {name: _profiles(name) for name in SERVICES if _profiles(name)}
    assert profiles == {
        "triton-cpu": {"cpu"}, "triton-gpu": {"gpu"},
        "exporter": {"tools"}, "exporter-gpu": {"tools-gpu"},
    }  # fmt: skip
    for one, other in (("triton-cpu", "triton-gpu"), ("exporter", "exporter-gpu")):
        cpu, gpu = dict(SERVICES[one]), dict(SERVICES[other])
        devices = gpu.pop("deploy")["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
        assert cpu.pop("profiles") != gpu.pop("profiles")
        assert cpu == gpu
    assert example()["COMPOSE_PROFILES"] in {"cpu", "gpu"}


# ---- variables and secrets ----


def test_every_variable_is_documented_and_every_documented_one_used() -> None:
    used = {name for name, _, _ in variables((DOCKER / "compose.yaml").read_text())}
    assert used == set(example()) - OWN


def test_every_variable_has_a_comment() -> None:
    lines = (DOCKER / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#") and not line.partition("=")[0].endswith("PORT"):
            above = next(one for one in reversed(lines[:number]) if "=" not in one or one[0] == "#")
            assert above.startswith("#"), line


def test_defaults_are_those_of_the_example() -> None:
    given = example()
    for name, how, default in variables((DOCKER / "compose.yaml").read_text()):
        if how.endswith("-"):
            assert default == given[name], name


def test_secrets_are_required_and_have_no_default() -> None:
    for name, value in example().items():
        if name.endswith(("SECRET", "PASSWORD")):
            assert value == ""
    text = (DOCKER / "compose.yaml").read_text()
    for name in example():
        if name.startswith("STORE_") or name.endswith("PASSWORD"):
            required = [how for found, how, _ in variables(text) if found == name]
            # Compose reads the whole file first, so once is enough.
            assert ":?" in required, name


def test_no_secret_is_written_down() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if _SECRET.search(name):
                assert re.fullmatch(r"\$\{\w+(:\?[^}]*|-)\}", str(value)), name
        for word in [*service.get("command", []), *service.get("entrypoint", [])]:
            assert not re.search(r"\$\{\w*(SECRET|PASSWORD|KEY)", word), word
    keys = re.findall(r'Key": "([^"]*)"', SERVICES["store"]["environment"]["IDENTITIES"])
    assert len(keys) == 8
    for key in keys:
        assert re.fullmatch(r"\$\{STORE_[A-Z]+_(KEY|SECRET)\}", key)


def _names(settings: type[BaseSettings]) -> set[str]:
    prefix = settings.model_config["env_prefix"]
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [f"{prefix}{name.upper()}"]
        names.update(str(choice) for choice in choices)
    return names


@pytest.mark.parametrize(
    ("name", "settings"), [("api", ApiSettings), ("dashboard", DashboardSettings)]
)
def test_what_a_service_is_told_it_knows(
    name: str, settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SERVICES[name]["environment"]
    assert {k for k in given if not k.startswith("AWS_")} <= _names(settings) | CREDENTIALS
    for key, value in given.items():
        monkeypatch.setenv(key, interpolated(value, _values()))
    read = settings(_env_file=None)  # type: ignore[call-arg]
    assert str(read.model_dump()["tracking_uri"]) == "http://mlflow:5000"


@pytest.mark.parametrize(
    ("name", "settings"), [("api", ApiSettings), ("dashboard", DashboardSettings)]
)
def test_a_proxy_in_front_can_be_named(
    name: str, settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"STLAB_{name.upper()}_"
    given = {
        f"{prefix}ALLOWED_HOSTS": "ml.example",
        f"{prefix}ROOT_PATH": "/ml",
        f"{prefix}FORWARDED_ALLOW_IPS": "172.18.0.1",
    }

    def read(values: dict[str, str]) -> Any:
        for key in given:
            monkeypatch.setenv(key, interpolated(SERVICES[name]["environment"][key], values))
        return settings(_env_file=None, host="0.0.0.0")  # type: ignore[call-arg]

    behind = read(given)
    assert {"ml.example", "localhost"} <= set(behind.hosts)
    assert "api" in behind.hosts or name != "api"
    assert (behind.root_path, behind.forwarded_allow_ips) == ("/ml", "172.18.0.1")
    fields = settings.model_fields
    for values in ({}, dict.fromkeys(given, "")):
        for key, default in (
            (key, fields[key]) for key in fields if f"{prefix}{key.upper()}" in given
        ):
            assert getattr(read(values), key) == default.default


# ---- the store ----


def _identities() -> dict[str, dict[str, Any]]:
    content = interpolated(SERVICES["store"]["environment"]["IDENTITIES"], _values())
    return {one["name"]: one for one in json.loads(content)["identities"]}


def test_store_identities_have_the_least_rights() -> None:
    rights = {name: one["actions"] for name, one in _identities().items()}
    assert set(rights) == {"admin", "mlflow", "exporter", "reader"}
    assert {right.partition(":")[2] for right in rights["mlflow"]} == {"mlflow"}
    assert {right.partition(":")[2] for right in rights["exporter"]} == {"models"}
    assert rights["reader"] == ["Read:models", "List:models"]


@for_each(
    [
        ("buckets", "admin"),
        ("mlflow", "mlflow"),
        ("triton-cpu", "reader"),
        ("triton-gpu", "reader"),
        ("dashboard", "reader"),
        ("exporter", "exporter"),
    ]
)
def test_each_service_has_its_own_keys(name_and_identity: tuple[str, str]) -> None:
    name, identity = name_and_identity
    (keys,) = _identities()[identity]["credentials"]
    given = {
        key: interpolated(value, _values()) for key, value in SERVICES[name]["environment"].items()
    }
    assert given["AWS_ACCESS_KEY_ID"] == keys["accessKey"]
    assert given["AWS_SECRET_ACCESS_KEY"] == keys["secretKey"]


def test_only_these_services_have_keys() -> None:
    with_keys = {name for name, one in SERVICES.items() if "AWS_ACCESS_KEY_ID" in str(one)}
    assert with_keys == {
        "buckets", "dashboard", "exporter", "exporter-gpu", "mlflow", "triton-cpu", "triton-gpu",
    }  # fmt: skip


def test_services_share_one_repository() -> None:
    exporter = SERVICES["exporter"]["environment"]
    address = StoreUrl.parse(exporter["STLAB_MODEL_REPOSITORY"], exporter)
    assert f"--model-repository={address.for_server()}" in SERVICES["triton-cpu"]["command"]
    assert f"{address.bucket}/{address.prefix}" in SERVICES["buckets"]["command"]
    dashboard = SERVICES["dashboard"]["environment"]
    assert StoreUrl.parse(dashboard["STLAB_MODEL_REPOSITORY"], dashboard) == address
    assert exporter["STLAB_TRITON_RELEASE"] in SERVICES["triton-cpu"]["image"]


def test_artifacts_go_to_a_created_bucket() -> None:
    command = SERVICES["mlflow"]["command"]
    (destination,) = (word for word in command if word.startswith("--artifacts-destination="))
    bucket = destination.partition("s3://")[2].partition("/")[0]
    assert bucket in SERVICES["buckets"]["command"]
    assert any(word.startswith("--allowed-hosts=mlflow:5000,") for word in command)


@mock_aws
def test_buckets_are_made_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    spec = importlib.util.spec_from_file_location("make_buckets", DOCKER / "make_buckets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    places = SERVICES["buckets"]["command"]
    assert module.main(places) == 0
    assert module.main(places) == 0
    store = boto3.client("s3")
    assert {one["Name"] for one in store.list_buckets()["Buckets"]} == {"mlflow", "models"}
    listed = store.list_objects_v2(Bucket="models")["Contents"]
    assert [one["Key"] for one in listed] == ["triton/.keep"]
    assert not capsys.readouterr().out


# ---- Triton ----


def _place(name: str) -> Path:
    return DOCKER / STACK["configs"][name]["file"]


def _flags() -> dict[str, str]:
    lines = _place("triton-flags").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def test_triton_has_no_flag_twice() -> None:
    for name in ("triton-cpu", "triton-gpu"):
        targets = {config["source"]: config["target"] for config in SERVICES[name]["configs"]}
        start = PurePosixPath(targets["triton-start"])
        assert SERVICES[name]["entrypoint"] == ["/bin/sh", str(start)]
        assert PurePosixPath(targets["triton-flags"]) == start.parent / "server.args"
        given = {word.partition("=")[0] for word in SERVICES[name]["command"]}
        assert not given & set(_flags())


def test_triton_is_started_with_every_flag(tmp_path: Path) -> None:
    program = tmp_path / "tritonserver"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    command = SERVICES["triton-cpu"]["command"]
    printed = subprocess.run(
        ["/bin/sh", str(_place("triton-start")), *command],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert [word.partition("=")[0] for word in printed] == [
        *_flags(),
        *(word.partition("=")[0] for word in command),
    ]
    # Without a key the server makes a random one.
    assert "{key}" not in "".join(printed)


def test_only_the_store_reads_its_identities(tmp_path: Path) -> None:
    service = SERVICES["store"]
    program = tmp_path / "weed"
    program.write_text('#!/bin/sh\nenv > "$0.env"\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    shell, option, script, zero = (interpolated(word, _values()) for word in service["entrypoint"])
    for there, here in {
        "/usr/bin/weed": program,
        "/tmp/s3.json": tmp_path / "s3.json",
    }.items():
        script = script.replace(there, str(here))
    given = {key: interpolated(value, _values()) for key, value in service["environment"].items()}
    printed = subprocess.run(
        [shell, option, script, zero, *service["command"]],
        env={**given, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=ROOT,  # where a * would match files
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed == service["command"]
    assert json.loads((tmp_path / "s3.json").read_text())["identities"]
    assert (tmp_path / "s3.json").stat().st_mode & 0o077 == 0
    assert "filled-store" not in (tmp_path / "weed.env").read_text()


def test_triton_is_hardened() -> None:
    flags = _flags()
    assert flags["--model-control-mode"] == "explicit"
    assert flags["--disable-auto-complete-config"] in {"", "true"}
    assert flags["--strict-readiness"] == "true"
    assert flags["--exit-on-error"] == "true"
    assert flags["--allow-client-shm"] == "false"


@for_each(["triton-cpu", "triton-gpu"])
def test_triton_has_time_to_stop(name: str) -> None:
    grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace > int(_flags()["--exit-timeout-secs"])


def test_the_service_has_time_to_stop() -> None:
    grace = float(SERVICES["api"]["stop_grace_period"].removesuffix("s"))
    fields = ApiSettings.model_fields
    assert grace > fields["drain_seconds"].default + fields["stop_seconds"].default


def test_services_share_a_network_with_those_they_call() -> None:
    names = dict.fromkeys(SERVICES, "")
    hosts = {**{name: name for name in names}, "triton": "triton-cpu"}
    for name, service in SERVICES.items():
        for value in map(str, service.get("environment", {}).values()):
            for host in re.findall(r"(?:http://|^)([a-z]+):[0-9]{4}", value):
                other = SERVICES[hosts[host]]
                assert set(other["networks"]) & set(service["networks"]), (name, host)


def test_git_ignores_the_filled_in_example() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored
    assert Path(DOCKER / ".env.example").is_file()
