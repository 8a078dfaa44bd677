"""The contract of the command: exit codes, stdout and stderr, settings, ``--json``."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.models import ROWS, Layers
from tests.support.registering import RegistryFixture
from tests.support.running import STARTED, command, files

CLOSED = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["net"], 2, "--alias"),
        (["--alias", "dev"], 2, "model"),
        (["net", "--alias", "dev", "--no-such-option"], 2, "--no-such-option"),
        (["net", "--alias", "dev", "--version", "first"], 2, "--version"),
        (["../x", "--alias", "dev"], 2, "'../x'"),
        (["net", "--alias", "dev", "--max-queue-size", "1"], 2, "at least 8"),
        (
            ["net", "--alias", "dev", "--max-queue-size", "8", "--batching", "off"],
            2,
            "--batching off",
        ),
        (["net", "--alias", "production"], 4, "dev, staging, prod"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    ran = command(tmp_path, *arguments, "--json")
    assert ran.code == code
    assert words in ran.result["error"]["message"]
    assert "hint: " in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.parent.glob("**/x")) == []
    assert files(tmp_path) == {}


def test_the_module_is_the_command_too(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "exporter.cli", "export"]
    ran = command(tmp_path, "net", "--alias", "dev", program=program)
    assert (ran.code, "mlflow.db" in ran.stderr) == (6, True)


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("kind", ["closed", "silent", "sqlite", "database"])
def test_a_registry_that_cannot_be_reached(tmp_path: Path, kind: str) -> None:
    with silent_port() as port:
        uri = {
            "closed": "http://joe:s3cret@127.0.0.1:9",
            "silent": f"http://joe:s3cret@127.0.0.1:{port}",
            "sqlite": f"sqlite:///{tmp_path}/missing.db",
            "database": "postgresql://joe:s3cret@127.0.0.1:9/mlflow",
        }[kind]
        ran = command(tmp_path, "net", "--alias", "dev", "--json", MLFLOW_TRACKING_URI=uri)
    assert (ran.code, ran.result["error"]["kind"]) == (6, "unavailable")
    assert ran.seconds < 30
    assert "s3cret" not in ran.stdout + ran.stderr
    assert "MLFLOW_TRACKING_URI" in ran.result["error"]["hint"]
    assert not (tmp_path / "missing.db").exists()


def test_settings_by_precedence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"MLFLOW_TRACKING_URI={CLOSED}/from-dotenv\nMLFLOW_MODEL_NAME=named\n"
        "MLFLOW_MODEL_ALIAS=staging\nSTLAB_MODEL_REPOSITORY=from-dotenv\n"
    )
    lowest = command(tmp_path, "--json").result
    assert (lowest["model"], lowest["alias"], lowest["repository"]) == (
        "named",
        "staging",
        "from-dotenv",
    )
    assert "/from-dotenv" in lowest["error"]["message"]
    above = {"STLAB_MODEL_REPOSITORY": "from-environment", "MLFLOW_TRACKING_URI": f"{CLOSED}/env"}
    middle = command(tmp_path, "--json", **above).result
    assert middle["repository"] == "from-environment"
    assert "9/env" in middle["error"]["message"]
    options = ["other", "--alias", "dev", "--repository", "from-option"]
    top = command(tmp_path, *options, "--json", **above, MLFLOW_MODEL_ALIAS="prod").result
    assert (top["model"], top["alias"], top["repository"]) == ("other", "dev", "from-option")
    (tmp_path / ".env").unlink()
    default = command(tmp_path, "net", "--alias", "dev", "--json").result
    assert default["repository"] == "model_repository"
    assert "sqlite:///mlflow.db" in default["error"]["message"]


def test_stderr_in_lines_of_json(tmp_path: Path) -> None:
    asked = ["net", "--alias", "dev", "--json"]
    ran = command(tmp_path, *asked, LOG_FORMAT="json", MLFLOW_TRACKING_URI=CLOSED)
    step, error = ran.log
    assert (step["step"], step["failed"]) == ("resolve", True)
    assert (error["level"], error["kind"]) == ("error", "unavailable")
    assert error["message"] == ran.result["error"]["message"]
    quiet = command(tmp_path, *asked, LOG_FORMAT="json", LOG_LEVEL="error")
    assert [line["level"] for line in quiet.log] == ["error"]
    wrong = command(tmp_path, "--nonsense", LOG_FORMAT="json")
    assert [line["kind"] for line in wrong.log] == ["usage"]
    assert wrong.stdout == ""


def test_something_else_than_a_registry_answers(tmp_path: Path) -> None:
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://joe:s3cret@127.0.0.1:{server.server_port}"
        ran = command(tmp_path, "net", "--alias", "dev", "--json", MLFLOW_TRACKING_URI=uri)
        server.shutdown()
    assert ran.code == 6
    assert "is not an MLflow server" in ran.result["error"]["message"]
    assert "s3cret" not in ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def net(lab: RegistryFixture) -> RegistryFixture:
    lab.register_torch("net", Layers().eval(), ROWS)
    return lab


def test_unknown_names_come_with_the_known_ones(net: RegistryFixture) -> None:
    uri = {"MLFLOW_TRACKING_URI": net.uri}
    model = command(net.folder, "nought", "--alias", "dev", "--json", **uri)
    assert (model.code, model.result["error"]["kind"]) == (4, "not_found")
    assert "registered models: net" in model.result["error"]["message"]
    version = command(net.folder, "net", "--alias", "dev", "--version", "7", "--json", **uri)
    assert version.code == 4
    assert "it has 1" in version.result["error"]["message"]


@pytest.mark.triton
def test_from_plan_to_promotion_to_nothing_to_do(net: RegistryFixture) -> None:
    """One story, since every command takes its seconds."""
    uri = {"MLFLOW_TRACKING_URI": net.uri}
    asked = ["net", "--alias", "dev", "--repository", "here", "--json"]
    before = {str(path) for path in net.folder.rglob("*")}
    tags = dict(net.client.get_model_version("net", "1").tags)
    planned = command(net.folder, *asked, "--dry-run", **uri)
    assert (planned.code, planned.result["status"]) == (0, "planned")
    assert {str(path) for path in net.folder.rglob("*")} == before
    assert net.alias("net", "dev") is None
    assert net.client.get_model_version("net", "1").tags == tags
    assert net.client.get_experiment_by_name("stlab-export") is None

    promoted = command(net.folder, *asked, program=STARTED, **uri, LOG_FORMAT="json")
    result = promoted.result
    assert (promoted.code, result["status"]) == (0, "promoted")
    way = ["resolve", "pull", "convert", "configure", "prove", "publish", "activate", "verify"]
    taken = [line["step"] for line in promoted.log]
    assert [step for step in taken if step in {*way, "promote"}] == [*way, "promote"]
    assert set(taken) == set(result["seconds"]) - {"total"}
    assert planned.result["plan"] == [
        "pull", "convert to onnx", "configure", "prove", "publish to here",
        "move 'dev' to version 1",
    ]  # fmt: skip
    assert {"pull", "convert", "configure", "prove", "publish", "promote"} < set(result["seconds"])
    assert net.alias("net", "dev") == 1
    assert (result["version"], result["previous"], result["served_version"]) == (1, None, 1)
    assert result["repository"] == "here"
    assert set(result["bundle"]) == {"sha256", "format", "bytes", "reused"}
    assert result["bundle"]["reused"] is False
    assert result["parity"]["passed"] is True
    assert 0 <= result["parity"]["margin"] < 1
    assert result["parity"]["batching"] == "dynamic"
    assert result["seconds"]["total"] <= promoted.seconds
    assert "net" in {path.name for path in (net.folder / "here").iterdir()}

    again = command(net.folder, *asked, **uri)
    assert (again.code, again.result["status"]) == (0, "unchanged")
    assert set(again.result["seconds"]) == {"resolve", "total"}
    assert again.result["bundle"]["sha256"] == result["bundle"]["sha256"]
    assert again.result["parity"] == result["parity"]

    expected = command(net.folder, *asked, "--expect-current", "3", **uri)
    assert (expected.code, expected.result["error"]["kind"]) == (5, "conflict")
    by_hand = command(net.folder, "net", "--alias", "prod", "--version", "1", **uri)
    assert by_hand.code in {2, 5}
    assert net.alias("net", "prod") is None


@pytest.mark.triton
def test_a_refused_model_as_people_see_it(net: RegistryFixture) -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    net.register_torch("mean", Mean().eval(), ROWS)
    # Brackets are markup to the library that prints the table.
    asked = ["mean", "--alias", "dev", "--batching", "require", "--repository", "[red]here"]
    ran = command(net.folder, *asked, MLFLOW_TRACKING_URI=net.uri)
    assert ran.code == 3
    assert ran.stdout.startswith("status")
    assert "[red]here" in ran.stdout
    assert "error: the model cannot be batched" in ran.stderr
    assert "hint: " in ran.stderr
    assert "Traceback" not in ran.stderr
    assert net.alias("mean", "dev") is None
    assert not (net.folder / "[red]here").exists()


@pytest.mark.triton
def test_the_same_version_gives_the_same_bundle_elsewhere(lab: RegistryFixture) -> None:
    lab.register_torch("same", Layers(3).eval(), ROWS)
    first = lab.export("same", "dev")
    assert first.bundle is not None
    lab.client.delete_model_version_tag("same", "1", "stlab.parity")
    asked = ["same", "--alias", "staging", "--repository", "elsewhere", "--json"]
    settings = {"MLFLOW_TRACKING_URI": lab.uri, "PYTHONHASHSEED": "77"}
    second = command(lab.folder, *asked, program=STARTED, **settings).result
    assert second["bundle"]["reused"] is False
    assert second["bundle"]["sha256"] == first.bundle["sha256"]
    here, there = lab.folder / "repository" / "same", lab.folder / "elsewhere" / "same"
    for name, content in files(here).items():
        if not name.endswith("report.json"):
            assert (there / name).read_bytes() == content, name
            assert str(lab.folder).encode() not in content, name
            assert socket.gethostname().encode() not in content, name
