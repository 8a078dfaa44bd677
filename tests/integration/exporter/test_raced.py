"""Eight exporters at once: one promotion at a time, and a state that some order explains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from exporter.registry.promotion_record import open_records, promotion
from exporter.repository import LocalRepository, Repository, open_repository
from tests.support.models import ROWS, times
from tests.support.moto_s3 import serving, set_credentials
from tests.support.registering import RegistryFixture
from tests.support.running import start

pytestmark = pytest.mark.triton

MANY = 8
# Waits at one point of the way until all are there.
TOGETHER = """
import os, sys, time
from importlib import import_module
folder, module, name, method = sys.argv[1:5]
owner = getattr(import_module(module), name)
original = getattr(owner, method)
def together(*given, **named):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    while len(os.listdir(folder)) < MANY:
        time.sleep(0.01)
    return original(*given, **named)
setattr(owner, method, together)
from exporter.cli import main
main(["export", *sys.argv[5:]])
""".replace("MANY", str(MANY))
AT_THE_LOCK = ("exporter.repository.local_repository", "LocalRepository", "workspace")
AT_THE_LEASE = ("exporter.repository.object_repository", "ObjectRepository", "workspace")


def race(
    lab: RegistryFixture,
    folder: Path,
    point: tuple[str, str, str] | None,
    runs: Sequence[Sequence[str]],
    **settings: str,
) -> list[dict[str, Any]]:
    """Export in many processes at once; returns their results, each with its exit code."""
    folder.mkdir()
    before = [str(folder), *point] if point else ["export"]
    driver = TOGETHER if point else ""
    settings["MLFLOW_TRACKING_URI"] = lab.uri
    processes = [
        start(lab.folder, *before, *arguments, "--json", driver=driver, **settings)
        for arguments in runs
    ]
    results = []
    for process in processes:
        output, log = process.communicate(timeout=240)
        assert process.returncode in {0, 5}, log
        results.append({**json.loads(output), "code": process.returncode})
    return results


def register(lab: RegistryFixture, name: str) -> None:
    for number in range(1, MANY + 1):
        lab.register_onnx(name, times(float(number)), example=ROWS)


def arguments(name: str, version: int, alias: str, repository: str = "repository") -> list[str]:
    return [name, "--alias", alias, "--version", str(version), "--repository", repository]


def winners(results: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(entry["alias"], entry["version"]) for entry in results if entry["code"] == 0]


def check_state(lab: RegistryFixture, name: str, kept: Repository) -> None:
    """Check that aliases, records and what is served agree."""
    registered = lab.client.get_registered_model(name)
    aliases = {alias: int(version) for alias, version in registered.aliases.items()}
    found = lab.client.search_model_versions(f"name = '{name}'")
    tags = {int(entry.version): entry.tags for entry in found}
    for alias, version in aliases.items():
        assert set(open_records(tags, alias)) == {version}
    assert set(kept.served_versions(name)) == set(aliases.values())
    for version in aliases.values():
        bundle = kept.bundle(name, version)
        assert bundle is not None
        kept.verify(bundle)


def check_one_won(lab: RegistryFixture, name: str, results: Sequence[dict[str, Any]]) -> None:
    """Check that one promoted, and that the others say who was in their way."""
    ((alias, version),) = winners(results)
    assert lab.alias(name, alias) == version
    losers = [entry["error"] for entry in results if entry["code"] == 5]
    assert all("another export" in error["message"] for error in losers)


@pytest.mark.parametrize("aliases", [("staging",), ("dev", "staging")])
def test_all_at_the_lock_at_once(
    lab: RegistryFixture, tmp_path: Path, aliases: tuple[str, ...]
) -> None:
    name = f"locked-{len(aliases)}"
    register(lab, name)
    runs = [
        arguments(name, number, aliases[number % len(aliases)]) for number in range(1, MANY + 1)
    ]
    check_one_won(lab, name, race(lab, tmp_path / "all", AT_THE_LOCK, runs))
    check_state(lab, name, LocalRepository(lab.folder / "repository"))


def test_all_at_the_lease_of_an_object_store(
    lab: RegistryFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "leased"
    register(lab, name)
    set_credentials(monkeypatch)
    with serving() as s3:
        s3.reset()
        runs = [
            arguments(name, number, ("dev", "staging")[number % 2], s3.url())
            for number in range(1, MANY + 1)
        ]
        results = race(lab, tmp_path / "all", AT_THE_LEASE, runs, **s3.settings)
        check_one_won(lab, name, results)
        check_state(lab, name, open_repository(s3.url()))


def test_as_they_come(lab: RegistryFixture, tmp_path: Path) -> None:
    """Who comes late may go on from where the one before ended, and from nowhere else."""
    name = "free"
    register(lab, name)
    runs = [arguments(name, number, "staging") for number in range(1, MANY + 1)]
    results = race(lab, tmp_path / "all", None, runs)
    won = dict.fromkeys(version for _, version in winners(results))
    previous = {}
    for version in won:
        record = promotion(lab.client.get_model_version(name, str(version)).tags, "staging")
        assert record is not None
        previous[record.previous] = version
    assert len(previous) == len(won), "two were promoted from the same version"
    order, current = [], None
    while current in previous:
        current = previous[current]
        order.append(current)
    assert set(order) == set(won)
    assert lab.alias(name) == order[-1]
    check_state(lab, name, LocalRepository(lab.folder / "repository"))
