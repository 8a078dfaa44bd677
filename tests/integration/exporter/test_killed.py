"""SIGKILL anywhere: what is served is whole and proven, and the next run finishes and tidies up.

``STLAB_KILLS`` says how many kills of each kind there are, locally and on an object store; ``all``
for every event, and 100 random instants. Without it there is one of each kind, locally: the tests
of object stores have their own.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from exporter.repository import StoreUrl
from exporter.triton.releases import DEFAULT_RELEASE, release
from exporter.triton.runtime import ensure_runtime
from exporter.triton.server import TritonServer
from tests.support.moto_s3 import CREDENTIALS, serving, set_credentials
from tests.support.registering import RegistryFixture

from .killing import Stage, Watch, wait_for_servers, watching

pytestmark = [pytest.mark.triton, pytest.mark.timeout(7200)]

log = logging.getLogger(__name__)
KILLS = os.environ.get("STLAB_KILLS", "")
Scene = Callable[[Stage], tuple[list[str], str, int, int]]
"""Prepares a change; returns the command, the alias, and its version before and after."""


def staged(stage: Stage) -> tuple[list[str], str, int, int]:
    """A new version is converted, proven, published and promoted to staging."""
    after = stage.register()
    return (
        stage.command("export", "staging", "--version", str(after)),
        "staging",
        after - 1,
        after,
    )


def sold(stage: Stage) -> tuple[list[str], str, int, int]:
    """What staging names, in a repository of its own, is promoted to prod."""
    after = stage.register()
    result = stage.lab.export(stage.model, "staging", version=after, repository="staging-models")
    assert result.status == "promoted", result.error
    before = stage.lab.alias(stage.model, "prod")
    assert before is not None
    return stage.command("export", "prod"), "prod", before, after


def taken_back(stage: Stage) -> tuple[list[str], str, int, int]:
    """Prod goes back to what it named before; and then back again."""
    before = stage.lab.alias(stage.model, "prod")
    after = stage.lab.alias(stage.model, "archived")
    assert before is not None
    assert after is not None
    return stage.command("rollback", "prod", "--to", str(after)), "prod", before, after


SCENES: dict[str, Scene] = {"export": staged, "prod": sold, "rollback": taken_back}


@pytest.fixture(scope="module", params=["local", "s3"] if KILLS else ["local"])
def stages(lab: RegistryFixture, request: pytest.FixtureRequest) -> Iterator[dict[str, Stage]]:
    """A model for each scene, with a version in place and another one before it."""
    with ExitStack() as ending:
        s3, repository, environment = None, "repository", dict(os.environ)
        for_server = str(lab.folder / repository)
        if request.param == "s3":
            set_credentials(ending.enter_context(pytest.MonkeyPatch.context()))
            s3 = ending.enter_context(serving())
            s3.reset()
            # To Triton a folder without anything in it is none.
            s3.put("production/models/README", b"Triton models")
            repository = s3.url()
            address = StoreUrl.parse(repository)
            for_server, environment = address.for_server(), address.server_environment(os.environ)
        else:
            (lab.folder / "repository").mkdir()
        runtime = ensure_runtime(release(DEFAULT_RELEASE))
        server = TritonServer.start(runtime, for_server, environment=environment)
        ending.enter_context(server).wait_live()
        stages = {
            name: Stage(
                lab,
                f"killed-{name}-{request.param}",
                repository,
                server,
                s3,
                CREDENTIALS if s3 else {},
            )
            for name in SCENES
        }
        for name, stage in stages.items():
            for _ in range(2):
                version = stage.register()
                if name != "export":
                    lab.export(stage.model, version=version, repository="staging-models")
                stage.finish(stage.command("export", "staging" if name == "export" else "prod"))
        yield stages


def survive(stage: Stage, scene: Scene, watch: Watch, **instant: float) -> bool:
    """Kill a command once, check what it left, and let the next one finish."""
    command, alias, before, after = scene(stage)
    watch.allowed = {float(before), float(after)}
    killed = stage.kill(command, **instant)  # type: ignore[arg-type]
    stage.check_sound(alias, {before, after})
    result, _ = stage.finish(command)
    assert result["version"] == after
    watch.allowed = {float(after)}
    stage.check_finished(alias, after)
    assert watch.problems == [], instant
    return killed


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_every_event(stages: dict[str, Stage], name: str) -> None:
    stage, scene = stages[name], SCENES[name]
    command, _, before, after = scene(stage)
    with watching(stage.server, stage.model, {float(before), float(after)}, 0.02) as watch:
        events = stage.events(command)
        assert events > 30
        step = 1 if KILLS == "all" else max(1, events // int(KILLS or 1))
        points = list(range(step // 2, events, step))
        killed = sum(survive(stage, scene, watch, at=point) for point in points)
    wait_for_servers(stage.lab)
    assert watch.calls > len(points)
    assert killed >= len(points) - 2, "a way may be shorter by an event or two"
    log.info("%s: %d kills at %d events, %d calls", name, killed, events, watch.calls)


@pytest.mark.parametrize("name", SCENES)
def test_killed_at_any_instant(stages: dict[str, Stage], name: str) -> None:
    stage, scene = stages[name], SCENES[name]
    number = 34 if KILLS == "all" else int(KILLS or 1)
    draw = random.Random(name)
    command, _, before, after = scene(stage)
    with watching(stage.server, stage.model, {float(before), float(after)}, 0.02) as watch:
        whole = stage.finish(command)[0]["seconds"]["total"] + 1.0
        killed = 0
        for turn in range(number + 5):  # a command may end before it is killed
            if turn < number or not killed:
                killed += survive(stage, scene, watch, after=draw.uniform(0.3, whole))
    wait_for_servers(stage.lab)
    log.info("%s: %d kills within %.1f s, %d calls", name, killed, whole, watch.calls)
    assert killed
