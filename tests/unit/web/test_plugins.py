"""Plug-ins of other distributions: found by entry point, and named where they are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import UsageError
from stlab_api.plugins import GROUPS, load_endpoint_plugins
from stlab_dashboard.plugins import GROUP, load_page_plugins

ENDPOINTS = GROUPS[0]
CODE = """
from pydantic import BaseModel

class Words(BaseModel):
    words: str

class Endpoint:
    model, path, request, response = "toy", "/v1/toy/words", Words, Words
    def to_tensors(self, request, spec): ...
    def to_response(self, request, outputs, model): ...

class Again(Endpoint): ...
class NoModel(Endpoint): model = None
class NoRequest(Endpoint): request = dict
class TakenPath(Endpoint): path = "/v1/models/toy"
class OldSignature(Endpoint):
    def to_tensors(self, request): ...
class WithArguments(Endpoint):
    def __init__(self, settings): ...

class Page:
    path, title = "/toy", "Toy"
    async def draw(self, context): ...

class NoTitle(Page): title = None
class NoDraw(Page): draw = None
class TakenPage(Page): path = "/try"
class Root(Page): path = "/"
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution `toyshop` with these entry points, in place of the one before."""
    info = tmp_path / "toyshop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toyshop\nVersion: 1.0\n")
    (tmp_path / "toyshop_plugins.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)

    def installed(group: str, **plugins: str) -> Path:
        lines = [f"{name} = {value}" for name, value in plugins.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        return tmp_path

    return installed


def refusal(load: Callable[[], Any]) -> str:
    with pytest.raises(UsageError) as caught:
        load()
    return f"{caught.value} {caught.value.hint}"


def test_endpoints_are_found_for_the_models_that_are_served(install: Install) -> None:
    for group in GROUPS:  # the former name counts as well
        install(group, words="toyshop_plugins:Endpoint")
        assert [p.path for p in load_endpoint_plugins(("toy",))] == ["/v1/toy/words"]
        assert load_endpoint_plugins(("other",)) == []


def test_a_broken_endpoint_is_named(install: Install) -> None:
    for plugin, reason in {
        "toyshop_missing:Endpoint": "ModuleNotFoundError",
        "toyshop_plugins:Missing": "AttributeError",
        "toyshop_plugins:WithArguments": "settings",
        "toyshop_plugins:NoModel": "model is not a string",
        "toyshop_plugins:NoRequest": "request is not a pydantic model",
        "toyshop_plugins:OldSignature": "to_tensors(request) is not to_tensors(request, spec)",
        "toyshop_plugins:TakenPath": "'/v1/models/toy' is not free",
    }.items():
        install(ENDPOINTS, words=plugin)
        message = refusal(lambda: load_endpoint_plugins(("toy",)))
        for part in ("plug-in 'words' of toyshop", plugin, reason, "pip uninstall toyshop"):
            assert part in message


def test_a_path_is_of_one_plugin(install: Install) -> None:
    install(ENDPOINTS, one="toyshop_plugins:Endpoint", two="toyshop_plugins:Again")
    assert "Endpoint and Again" in refusal(lambda: load_endpoint_plugins(("toy",)))
    install(GROUP, one="toyshop_plugins:Page", two="toyshop_plugins:Page")
    assert "/toy" in refusal(load_page_plugins)


def test_pages_are_found_and_a_broken_one_is_named(install: Install) -> None:
    install(GROUP, toy="toyshop_plugins:Page")
    assert "Toy" in [page.title for page in load_page_plugins()]
    for plugin, reason in {
        "toyshop_plugins:NoTitle": "title is not a string",
        "toyshop_plugins:NoDraw": "draw(context) is missing",
        "toyshop_plugins:TakenPage": "'/try' is not free",
        "toyshop_plugins:Root": "'/' is not free",
    }.items():
        install(GROUP, toy=plugin)
        message = refusal(load_page_plugins)
        assert "plug-in 'toy' of toyshop" in message
        assert reason in message


def test_the_programs_end_with_2_and_the_reason(install: Install, tmp_path: Path) -> None:
    def start(program: str, **settings: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "STLAB"))}
        done = subprocess.run(
            [sys.executable, "-m", program],
            env={**environment, "PYTHONPATH": str(tmp_path), **settings},
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    install(ENDPOINTS, words="toyshop_missing:Endpoint")
    assert "MLFLOW_MODEL_NAME is not set" in start("stlab_api")
    for program, group in (("stlab_api", ENDPOINTS), ("stlab_dashboard", GROUP)):
        install(group, words="toyshop_missing:Anything")
        message = start(program, MLFLOW_MODEL_NAME="toy")
        assert message.startswith(f"{program.replace('_', '-')}: plug-in 'words' of toyshop")
        assert "pip uninstall toyshop" in message
