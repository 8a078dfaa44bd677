"""A machine that lacks something is not the model's fault: exit 6, with the cause."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.commands.export.result import ExportResult
from exporter.proving import control_model, prove
from exporter.proving import proving_server as server
from exporter.triton.runtime import Runtime, ensure_runtime
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.running import command

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def model(lab: RegistryFixture) -> str:
    lab.register_onnx("poor", times(2.0), example=ROWS)
    return "poor"


def limit(folder: Path, *limits: str) -> Callable[..., Runtime]:
    """What gives the embedded server, whose processes have the limits of a shell's ``ulimit``."""

    def ensure(*given: object, **named: object) -> Runtime:
        runtime = ensure_runtime(*given, **named)  # type: ignore[arg-type]
        server = folder / "tritonserver"
        commands = "\n".join(f"ulimit {one}" for one in limits)
        server.write_text(f'#!/bin/sh\n{commands}\nexec {runtime.executable} "$@"\n')
        server.chmod(0o755)
        return replace(runtime, executable=server)

    return ensure


def failed(result: ExportResult) -> str:
    assert result.exit_code == 6, result.error
    assert result.error is not None
    assert result.error["kind"] == "unavailable"
    assert result.error["hint"]
    return str(result.error["message"])


def test_limits_of_the_machine(
    lab: RegistryFixture, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prove, "_SUSPECT_SECONDS", 5.0)
    monkeypatch.setattr(control_model, "CONTROL_SECONDS", 10.0)
    # How far a server comes with so little differs from run to run.
    for limits in ("-n 7", "-v 600000"):
        with monkeypatch.context() as patched:
            patched.setattr(server, "ensure_runtime", limit(tmp_path, limits))
            assert re.search(
                "the proving server|tritonserver ended", failed(lab.export(model, "dev"))
            )
    # Here a thread cannot be started, and the backend waits for it for ever.
    with monkeypatch.context() as patched:
        patched.setattr(server, "ensure_runtime", limit(tmp_path, "-v 1171875"))
        result = lab.export(model, "dev")
        # How much is too little depends on the machine's cores; never is it the model's fault.
        assert result.exit_code in (0, 6), result.error


def test_limits_of_the_whole_command(lab: RegistryFixture, model: str) -> None:
    """Wherever a descriptor or memory is missing, in whichever process, it is not the model."""
    codes = []
    for limit, most in (("NOFILE", 12), ("NOFILE", 16), ("NOFILE", 22), ("AS", 600_000_000)):
        program = (
            f"import resource, sys; resource.setrlimit(resource.RLIMIT_{limit}, ({most}, {most}));"
            "from exporter.cli import export_main; export_main()"
        )
        ran = command(
            lab.folder, model, "--alias", "dev", "--json",
            program=[sys.executable, "-c", program], MLFLOW_TRACKING_URI=lab.uri,
        )  # fmt: skip
        codes.append(ran.code)
        assert ran.code in (0, 6), (limit, most, ran.stdout, ran.stderr)
        if ran.code:
            assert ran.result["error"]["kind"] == "unavailable", ran.stdout
    assert codes.count(6) >= 2, codes


def test_a_model_that_the_server_refuses_is_at_fault(
    lab: RegistryFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same server loads the model that is known to be good."""
    lab.register_onnx("cut", times(2.0), example=ROWS)
    original = server.lay_out

    def cut(*given: object) -> None:
        original(*given)  # type: ignore[arg-type]
        (file,) = Path(str(given[1])).rglob("model.onnx")
        file.write_bytes(file.read_bytes()[:-40])

    monkeypatch.setattr(server, "lay_out", cut)
    result = lab.export("cut", "dev")
    assert result.exit_code == 3, result.error
    assert "Triton does not load the converted model" in (result.error or {})["message"]


def test_the_model_that_is_known_to_be_good_is(tmp_path: Path) -> None:
    """By every backend that has one, and nothing of it stays."""
    from exporter.triton.releases import DEFAULT_RELEASE, release
    from exporter.triton.server import TritonServer

    runtime = ensure_runtime(release(DEFAULT_RELEASE))
    with TritonServer.start(runtime, str(tmp_path), private=True) as server:
        server.wait_live()
        with server.client() as client:
            for backend in ("onnxruntime", "pytorch", "tensorrt"):
                control_model.check_server(client, backend)
            assert not client.repository.index(ready=True)
