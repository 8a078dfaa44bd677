"""The pipelines: events, secrets, and whether each step is a known command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml
from typer.main import get_command

from exporter.cli.app import app
from exporter.triton.releases import DEFAULT_RELEASE

from .deploy_files import DOCKER, ROOT, WOODPECKER, check_schema, for_each, pinned, scripts

FILES = sorted(WOODPECKER.glob("*.yaml"))
FLOWS: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
each_pipeline = for_each(FLOWS)
# Pipelines that move an alias.
MOVERS = ("export", "promote", "rollback")
_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|USER|_HOST$|REPOSITORY|_URI$|_URL$")
_PLAIN = frozenset({"SOURCE"})


def _steps(name: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = FLOWS[name]["steps"]
    return steps


def _commands(name: str) -> list[str]:
    return [command for step in _steps(name) for command in step["commands"]]


def _events(name: str) -> set[str]:
    return {rule["event"] for rule in FLOWS[name]["when"]}


def test_they_are_woodpecker_files() -> None:
    check_schema("vendor.woodpecker-ci", FILES)


@each_pipeline
def test_images_are_pinned(name: str) -> None:
    for step in _steps(name):
        assert pinned(step["image"]), step["image"]
        if "/stlab-" in step["image"]:
            part = step["image"].rpartition("/stlab-")[2].partition(":")[0]
            assert (DOCKER / f"{part}.Dockerfile").is_file()


@each_pipeline
def test_every_condition_names_an_event(name: str) -> None:
    for rule in [*FLOWS[name]["when"], *(r for s in _steps(name) for r in s.get("when", []))]:
        assert rule["event"] in {"push", "pull_request", "deployment"}
        # Without the event this would also be every pull request to main.
        if rule["event"] == "push" and rule in FLOWS[name]["when"]:
            assert rule["branch"] == "main"


# ---- secrets ----


@each_pipeline
def test_secrets_are_by_reference(name: str) -> None:
    text = (WOODPECKER / f"{name}.yaml").read_text()
    assert not re.search(r"^\s*secrets:", text, re.MULTILINE)
    for step in _steps(name):
        for key, value in step.get("environment", {}).items():
            if _SECRET.search(key) and key not in _PLAIN:
                assert list(value) == ["from_secret"], key
        for command in step["commands"]:
            # Woodpecker substitutes ${…} before it parses the file.
            for used in re.findall(r"\$\{(\w+)", command):
                assert used in FLOWS[name].get("matrix", {}), command


@each_pipeline
def test_secrets_are_documented(name: str) -> None:
    text = (WOODPECKER / f"{name}.yaml").read_text()
    comment = " ".join(line for line in text.splitlines() if line.startswith("#"))
    if name == "rollback":
        assert _secrets(name) == _secrets("promote")
        return
    for secret in _secrets(name):
        assert re.search(rf"\b{secret}\b", comment), secret


def _secrets(name: str) -> set[str]:
    return {
        value["from_secret"]
        for step in _steps(name)
        for value in step.get("environment", {}).values()
        if isinstance(value, dict)
    }


@each_pipeline
def test_a_pull_request_sees_no_secret(name: str) -> None:
    if "pull_request" in _events(name):
        assert not _secrets(name)


def test_production_has_its_own_secrets() -> None:
    assert _events("promote") == _events("rollback") == {"deployment"}
    prod = {secret for secret in _secrets("promote") if secret.startswith("prod_")}
    assert {secret.removeprefix("prod_") for secret in prod} == {
        secret.removeprefix("staging_")
        for secret in _secrets("export")
        if secret.startswith("staging_")
    }
    for name in set(FLOWS) - {"promote", "rollback"}:
        assert not _secrets(name) & prod


# ---- one active prod ----


def test_one_pipeline_at_a_time_moves_an_alias() -> None:
    # A rollback does not wait for a build of main.
    groups = {"export": "stlab-staging", "promote": "stlab-prod", "rollback": "stlab-prod"}
    for name in MOVERS:
        assert FLOWS[name]["concurrency"] == {"limit": 1, "group": groups[name]}
    moving = re.compile(r"^(stlab-export|stlab (export|rollback|prune))\b")
    for name in set(FLOWS) - set(MOVERS):
        assert not [command for command in _commands(name) if moving.match(command)]


def test_prod_moves_on_deployment_alone() -> None:
    for name in FLOWS:
        moves = [
            command
            for command in _commands(name)
            if "--alias prod" in command and re.match(r"stlab(-export| rollback)", command)
        ]
        assert bool(moves) == (name in {"promote", "rollback"})
    targets = {
        name: [rule["evaluate"] for rule in FLOWS[name]["when"]] for name in ("promote", "rollback")
    }
    assert targets == {
        "promote": ['CI_PIPELINE_DEPLOY_TARGET == "prod"'],
        "rollback": ['CI_PIPELINE_DEPLOY_TARGET == "rollback"'],
    }
    for name in targets:
        assert [rule["branch"] for rule in FLOWS[name]["when"]] == ["main"]
    # CI is set there.
    assert "--allow-manual" not in "".join(_commands("promote") + _commands("rollback"))


@for_each(MOVERS)
def test_status_is_checked_after_success_and_failure(name: str) -> None:
    steps = _steps(name)
    alias = "staging" if name == "export" else "prod"
    check = steps[1]
    model = r"\$1" if name == "rollback" else r"\$\{MODEL\}"
    assert re.fullmatch(rf"stlab status {model} --alias {alias} --check", check["commands"][-1])
    (rule,) = check["when"]
    assert sorted(rule["status"]) == ["failure", "success"]
    # Without depends_on, steps run in order.
    assert not any("depends_on" in step for step in steps)
    assert steps[0]["environment"] == check["environment"]


def test_staging_follows_main_once_it_has_passed() -> None:
    assert FLOWS["export"]["when"] == [{"event": "push", "branch": "main"}]
    assert set(FLOWS["export"]["depends_on"]) == {"lint", "test", "image"}
    for needed in FLOWS["export"]["depends_on"]:
        assert "push" in _events(needed)
        assert not any("path" in rule for rule in FLOWS[needed]["when"])


# ---- commands ----


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _stlab(words: list[str]) -> None:
    """Check that a command and each of its options exist."""
    group: Any = get_command(app)
    if words[0] == "stlab":
        command, rest = words[1], words[2:]
    else:
        command, rest = words[0].removeprefix("stlab-"), words[1:]
    assert words[0] in scripts()
    options = {option for one in group.commands[command].params for option in one.opts}
    for word in rest:
        if word.startswith("--"):
            assert word in options, (command, word)


def _words() -> Iterator[list[str]]:
    for name in FLOWS:
        for command in _commands(name):
            for part in command.split(" | "):
                yield shlex.split(part)


@for_each(list(_words()))
def test_every_command_exists(words: list[str]) -> None:
    program = words[0]
    if program == "make":
        assert words[1] in _targets(), f"the Makefile has no target {words[1]}"
    elif program.startswith("stlab"):
        _stlab(words)
    elif "/" in program:
        assert (ROOT / program).stat().st_mode & 0o111
    else:
        assert program in {"apt-get", "docker", "printf", "set"}


def test_pull_requests_run_the_commands_of_ci_run() -> None:
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    made = {command for name in ("lint", "test") for command in _commands(name)}
    assert {line for line in run if line.startswith("make ")} <= made
    for name in ("lint", "test", "chart"):
        assert _events(name) == {"pull_request", "push"}


def test_pipelines_run_the_images_that_they_build() -> None:
    (build,) = _steps("image")
    assert build["environment"]["VERSION"] == "${CI_COMMIT_SHA}"
    names = {step["image"] for name in MOVERS for step in _steps(name)}
    assert names == {f"{build['environment']['REGISTRY']}/stlab-exporter:${{CI_COMMIT_SHA}}"}
    assert DEFAULT_RELEASE in (DOCKER / "exporter.Dockerfile").read_text()
