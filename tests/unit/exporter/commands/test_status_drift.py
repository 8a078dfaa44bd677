"""What counts as drift, of states that were seen, and which command is named for it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from exporter.commands.status.drift import alias_drift, model_drift
from exporter.commands.status.fixes import FixCommands
from exporter.commands.status.snapshot import (
    ModelSnapshot,
    Published,
    aliases_elsewhere,
    interrupted_target,
)
from exporter.registry import PromotionRecord

FIXES = FixCommands("net", "repository", ("a:1",))
WHERE = "--repository repository --triton-url a:1"


def tags(bundle: str = "", **records: PromotionRecord) -> dict[str, str]:
    promoted = {f"stlab.promoted.{alias}": record.as_tag() for alias, record in records.items()}
    return {**promoted, "stlab.parity": "passed", "stlab.bundle.sha256": bundle}


def record(previous: int | None = None, at: str = "2026-01-01", **more: str) -> PromotionRecord:
    return PromotionRecord(more.pop("bundle", "b"), "runs:/1/bundle", "CI", previous, at=at, **more)


def seen(
    aliases: dict[str, int], versions: dict[int, dict[str, str]] | None = None, **more: Any
) -> ModelSnapshot:
    """A model of which everything is as it should be, but for what is given."""
    if versions is None:
        named = {v: {a for a in aliases if aliases[a] == v} for v in aliases.values()}
        versions = {v: tags(**{alias: record() for alias in named[v]}) for v in named}
    whole = Published("b", files_intact=True, intact=True)
    here = dict.fromkeys(aliases.values(), whole)
    served = tuple(sorted({v for a, v in aliases.items() if a != "archived"}))
    given = {"published": here, "in_config": served, "ready": {"a:1": frozenset(served)}, **more}
    return ModelSnapshot("net", aliases, versions, **given)


def kinds(state: ModelSnapshot) -> dict[str, str]:
    """What is found, with the command that is named for it."""
    found = [drift for alias in state.aliases for drift in alias_drift(state, alias, FIXES)]
    return {drift.kind: drift.fix for drift in [*found, *model_drift(state, FIXES)]}


def test_nothing() -> None:
    assert kinds(seen({})) == {}
    assert kinds(seen({"dev": 3, "staging": 2})) == {}


RESTORED = f"stlab rollback net --alias staging --to 2 {WHERE}"
MOVED_AWAY = f"mv repository/net/2 net-2-aside && {RESTORED}"


@pytest.mark.parametrize(
    ("differently", "kind", "fix"),
    [
        ({"published": {}}, "not_published", RESTORED),
        ({"published": {2: Published("b", "model.onnx differs")}}, "damaged", RESTORED),
        ({"published": {2: Published("", "?", replaceable=False)}}, "damaged", MOVED_AWAY),
        ({"published": {2: Published("other")}}, "other_bundle", MOVED_AWAY),
        ({"in_config": ()}, "not_in_config", RESTORED),
        ({"in_config": (), "config_damage": "it cannot be read"}, "config_damaged", RESTORED),
        (
            {"published": {2: Published("b", files_intact=True, intact=False)}},
            "config_differs",
            RESTORED,
        ),
        ({"ready": {"a:1": frozenset({1})}}, "not_served", RESTORED),
        ({"in_config": (1, 2)}, "nameless", f"stlab prune net --unaliased {WHERE}"),
    ],
)
def test_the_repository_and_the_servers(differently: dict[str, Any], kind: str, fix: str) -> None:
    assert kinds(seen({"staging": 2}, **differently))[kind] == fix


def test_a_server_that_is_silent_is_no_drift() -> None:
    assert kinds(seen({"staging": 2}, ready={"a:1": None})) == {}


def test_files_that_nobody_read_are_no_drift() -> None:
    assert kinds(seen({"staging": 2}, published={2: Published("b")})) == {}


def test_archived_is_fetched_where_it_is_needed() -> None:
    aliases = {"prod": 2, "archived": 1}
    versions = {2: tags(prod=record(1)), 1: tags(prod=record(until="2026-01-02"))}
    assert kinds(seen(aliases, versions, published={2: Published("b")})) == {}
    versions[1] = {}
    found = kinds(seen(aliases, versions))
    assert list(found) == ["no_evidence"]
    forgets = shlex.split(found["no_evidence"])[-1]
    assert forgets.endswith("MlflowClient().delete_registered_model_alias('net', 'archived')")


def test_moved_to_a_version_that_was_never_proven() -> None:
    versions = {1: tags(staging=record()), 2: {}}
    nowhere: dict[str, Any] = {"published": {}, "in_config": (1,)}
    assert kinds(seen({"staging": 2}, versions, **nowhere)) == {
        "no_evidence": f"stlab-export net --alias staging --version 2 {WHERE}",
        "nameless": f"stlab-export net --alias staging --version 2 {WHERE}",
    }


def test_prod_moved_by_hand() -> None:
    versions = {1: tags(prod=record()), 2: tags()}
    back = f"stlab rollback net --alias prod --to 1 {WHERE}"
    assert kinds(seen({"prod": 2}, versions))["no_evidence"] == back
    # What staging took, prod may take.
    versions[2] = tags(staging=record())
    on = f"stlab-export net --alias prod --version 2 {WHERE}"
    assert kinds(seen({"staging": 2, "prod": 2}, versions))["no_evidence"] == on
    # There is nothing to go back to, and nothing to take.
    first = f"stlab-export net --alias staging --version 2 {WHERE}"
    assert kinds(seen({"prod": 2}, {2: tags()}))["no_evidence"] == first


def test_moved_back_by_hand() -> None:
    versions = {1: tags(staging=record(until="2026-01-02")), 2: tags(staging=record(1))}
    assert kinds(seen({"staging": 1}, versions)) == {
        "moved_by_hand": f"stlab rollback net --alias staging --to 1 {WHERE}"
    }


def test_a_promotion_that_was_interrupted_is_finished() -> None:
    aliases = {"staging": 2, "prod": 1, "archived": 1}
    versions = {
        1: tags(prod=record(), archived=record()),
        2: tags(staging=record(), prod=record(1, "2026-01-02")),
    }
    assert interrupted_target(seen(aliases, versions), "prod") == 2
    finish = f"stlab rollback net --alias prod --to 2 {WHERE}"
    found = [
        drift for alias in aliases for drift in alias_drift(seen(aliases, versions), alias, FIXES)
    ]
    assert [(drift.kind, drift.fix) for drift in found] == [("interrupted", finish)] * 2


def test_a_record_that_was_only_not_closed() -> None:
    versions = {1: tags(staging=record()), 2: tags(staging=record(1, "2026-01-02"))}
    assert interrupted_target(seen({"staging": 2}, versions), "staging") is None
    assert kinds(seen({"staging": 2}, versions)) == {
        "claimed": f"stlab rollback net --alias staging --to 2 {WHERE}"
    }
    # The same after a rollback, whose target had been the version before.
    versions = {
        1: tags(staging=record(2, "2026-01-03")),
        2: tags(staging=record(1, "2026-01-02")),
    }
    assert interrupted_target(seen({"staging": 1}, versions), "staging") is None


def test_a_record_of_an_alias_that_names_nothing() -> None:
    versions = {1: tags(staging=record(), prod=record())}
    assert kinds(seen({}, versions))["claimed"].startswith("stlab-export net --alias staging")
    assert kinds(seen({"staging": 1}, versions)) == {
        "claimed": f"stlab-export net --alias prod --version 1 {WHERE}"
    }


def test_a_version_that_is_gone() -> None:
    versions = {1: tags(staging=record(until="2026-01-02"), dev=record())}
    assert kinds(seen({"staging": 2}, versions))["version_gone"] == (
        f"stlab rollback net --alias staging --to 1 {WHERE}"
    )
    versions = {
        1: tags(staging=record(at="2026-01-03")),
        3: tags(staging=record(at="2026-01-04", until="2026-01-05")),
    }
    assert kinds(seen({"staging": 2}, versions))["version_gone"].startswith(
        "stlab rollback net --alias staging --to 1 "
    )
    assert "delete_registered_model_alias" in kinds(seen({"prod": 2}, versions))["version_gone"]


def test_aliases_that_are_kept_in_another_repository() -> None:
    versions = {
        1: tags(prod=record(repository="here")),
        2: tags(staging=record(repository="there")),
    }
    aliases = {"staging": 2, "prod": 1}
    nothing_of_2: dict[str, Any] = {
        "published": {1: Published("b")}, "in_config": (1,), "ready": {}, "repository_id": "here",
    }  # fmt: skip
    state = seen(aliases, versions, **nothing_of_2)
    assert aliases_elsewhere(state) == {"staging"}
    assert kinds(state) == {}
    # Asked for alone, or looked for in a repository that keeps neither, it is missing.
    alone = seen({"staging": 2}, versions, selected=("staging",), **nothing_of_2)
    assert "it was published to another one" in alias_drift(alone, "staging", FIXES)[0].message
    assert aliases_elsewhere(seen(aliases, versions, repository_id="")) == set()


def test_aliases_that_are_not_asked_about_change_no_fix() -> None:
    state = seen(
        {"dev": 1, "staging": 2}, selected=("staging",), published={2: Published("b")},
        in_config=(2, 3),
    )  # fmt: skip
    found = [*alias_drift(state, "staging", FIXES), *model_drift(state, FIXES)]
    assert [(drift.kind, drift.fix) for drift in found] == [
        ("nameless", f"stlab prune net --unaliased {WHERE}")
    ]


def test_what_is_moved_away_moves_into_nothing(tmp_path: Path) -> None:
    fixes = FixCommands("net", str(tmp_path / "models"))
    for name in ("net-1-aside", "net-1-aside1", "net-1-aside2"):
        assert f"{tmp_path / name} && stlab rollback" in fixes.replace("dev", 1)
        (tmp_path / name).mkdir()


def test_commands_are_as_a_shell_takes_them() -> None:
    fixes = FixCommands("net", "my models")
    assert fixes.restore("dev", 1).endswith("--to 1 --repository 'my models'")
    # On an object store nothing can be moved away, and the command says what is in the way.
    assert (
        FixCommands("net", "s3://bucket/models").replace("dev", 1).startswith("stlab rollback net")
    )
