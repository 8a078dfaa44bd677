"""No password of an option, an address or the environment is printed, logged, recorded or kept.

Every command that takes an address is run with one that holds a password, in each way to print; and
what an export leaves is searched, every file of it: the repository, the registry and its artifacts.
"""

from __future__ import annotations

import logging
import signal
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.cli import app as cli
from exporter.cli.output import redact_stderr
from exporter.registry import ExportRun, Registry
from exporter.text import redaction
from exporter.text.redaction import learn
from tests.support.listening import listening
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture

SECRET = "tr0ub4dor-and-3"
CLOSED = "127.0.0.1:9"
SERVERS = (
    f"joe:{SECRET}@{CLOSED}", f"{SECRET}@{CLOSED}", f"grpc://joe:{SECRET}@{CLOSED}",
    f"grpcs://joe:{SECRET}@{CLOSED}", f"dns:///joe:{SECRET}@{CLOSED}",
    f"http://joe:{SECRET}@{CLOSED}/", f"http://joe:x/{SECRET}@{CLOSED}", f"joe:x,{SECRET}@{CLOSED}",
    f"{CLOSED}?token={SECRET}", f"http://{CLOSED}?api_key={SECRET}",
)  # fmt: skip
REPOSITORIES = (
    f"s3://joe:{SECRET}@bucket/models", f"s3://http://joe:{SECRET}@{CLOSED}/bucket/models",
    f"http://joe:{SECRET}@{CLOSED}/models", f"s3://bucket/models?X-Amz-Signature={SECRET}",
    f"az://container/models?sig={SECRET}",
)  # fmt: skip
REGISTRIES = (
    f"http://joe:{SECRET}@{CLOSED}", f"HTTPS://joe:{SECRET}@{CLOSED}", f"http://{SECRET}@{CLOSED}",
    f"postgresql://joe:{SECRET}@{CLOSED}/db", f"mysql+pymysql://{CLOSED}/db?password={SECRET}",
    f"unheard-of://joe:{SECRET}@{CLOSED}", f"http://joe:{SECRET}@[::1", f"http://joe:{SECRET}/@host",
    f"http://joe:{SECRET}@host:port", f"sqlite:///nowhere/{CLOSED}?token={SECRET}",
)  # fmt: skip
OPTIONS = {
    "export": ("--triton-url", "--prove-on", "--repository"),
    "rollback": ("--triton-url", "--repository"),
    "status": ("--triton-url", "--repository"),
    "pull": ("--repository",),
    "verify": ("--triton-url", "--repository"),
    "prune": ("--triton-url", "--repository"),
    "doctor": ("--triton-url", "--repository"),
    "serve": ("--repository",),
    "infer": ("--url",),
}
NEEDED = {
    "export": ("net", "--alias", "dev"),
    "rollback": ("net", "--alias", "dev"),
    "pull": ("net", "--alias", "dev"),
    "verify": ("net", "--alias", "dev"),
    "prune": ("net",),
    "infer": ("net", "--input", "inputs.json"),
}


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command changes in its process is put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("COLUMNS", "40")  # so narrow that a password would be cut in two
    monkeypatch.setenv("CI", "true")
    learned = set(redaction._learned)
    yield
    redaction._learned.intersection_update(learned)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def hides(text: str, secret: str = SECRET) -> bool:
    """Whether no part of a secret is there, also where a line was broken within it."""
    joined = "".join(character for character in text if not character.isspace())
    return secret not in joined and secret[:9] not in joined and secret[-9:] not in joined


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process as `main` does."""
    code = cli._run(list(arguments))
    out, err = capfd.readouterr()
    return code, out + err


@pytest.mark.parametrize("command", OPTIONS)
def test_no_option(
    command: str,
    lab: RegistryFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.uri)
    Path("inputs.json").write_text('{"x": [[1.0]]}')
    for option in OPTIONS[command]:
        for address in REPOSITORIES if option == "--repository" else SERVERS:
            for form in ("text", "json"):
                monkeypatch.setenv("LOG_FORMAT", form)
                json = ["--json"] if form == "json" and command != "serve" else []
                redaction._learned.clear()
                code, said = run(capfd, command, *NEEDED.get(command, ()), option, address, *json)
                assert hides(said), (command, option, address, said)
                assert code in {2, 4, 6}, (command, option, address, said)
                assert "Traceback" not in said


@pytest.mark.parametrize("uri", REGISTRIES)
def test_no_registry(
    uri: str,
    lab: RegistryFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for command in ("export", "status", "doctor", "pull"):
        for json in ([], ["--json"]):
            code, said = run(capfd, command, *NEEDED.get(command, ()), *json)
            assert hides(said), (command, said)
            assert code in {2, 6}, (command, said)


def test_no_registry_that_repeats_what_it_is_told(
    lab: RegistryFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's error may hold the token that came, and escape sequences."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    body = (
        f"\x1b[31mBearer {SECRET} of \x9b2J http://joe:{SECRET}-too@host is\nwrong\u202e".encode()
    )
    with listening() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        for status in (400, 401, 403, 404, 500, 200):
            server.answer = lambda _m, path, code=status: (
                200 if path == "/health" else code,
                {},
                body,
            )
            for command in ("export", "status"):
                for json in ([], ["--json"]):
                    _, said = run(capfd, command, *NEEDED.get(command, ()), *json)
                    assert hides(said), said
                    assert not [c for c in said if c != "\n" and unicodedata.category(c)[0] == "C"]
        assert server.credentials


def test_no_library_that_warns_by_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    redact_stderr()
    logging.lastResort.emit(logging.makeLogRecord({"msg": f"http://joe:{SECRET}@host"}))
    sys.stderr.write(f"as http://joe:{SECRET}@host\n")
    assert not sys.stderr.isatty()
    said = capsys.readouterr().err
    assert said.count("***") == 2
    assert hides(said)


@pytest.mark.triton
def test_nothing_that_is_kept(
    lab: RegistryFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY",
                 "AWS_SESSION_TOKEN", "STLAB_TRITON_KEY", "STLAB_API_KEYS"):  # fmt: skip
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.uri)
    monkeypatch.setenv("CI_PIPELINE_URL", f"https://ci-token:{SECRET}@ci.example/1?token={SECRET}")
    lab.register_onnx("kept", times(2.0), example=ROWS)
    repository = ["--repository", str(lab.folder / "repository")]
    steps = (
        ["export", "kept", "--alias", "dev", *repository, "--json"],
        ["export", "kept", "--alias", "staging", *repository],
        ["status", "kept", *repository, "--json"],
        ["rollback", "kept", "--alias", "dev", "--to", "1", "--reason",
         f"http://joe:{SECRET}@ticket", *repository],
        # Refused after all was done: the server to activate on is none.
        ["export", "kept", "--alias", "prod", "--triton-url", CLOSED, *repository],
    )  # fmt: skip
    for number, step in enumerate(steps):
        code, said = run(capfd, *step)
        assert code == (6 if number == 4 else 0), said
        assert hides(said), said
    tags = lab.client.get_model_version("kept", "1").tags
    assert "ci.example/1" in tags["stlab.promoted.dev"]  # who promoted it is on record all the same
    found = [path for path in lab.folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "report.html", "manifest.json"} <= {path.name for path in found}
    assert [path for path in found if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("password", ["pass", "mlflow", "123", "prod", "income", "promoted"])
def test_a_password_that_is_a_word_changes_no_record(password: str, lab: RegistryFixture) -> None:
    model, digest = f"{password}-net", "123" * 21
    lab.client.create_registered_model(model)
    lab.client.create_model_version(model, source="/nowhere")
    registry = Registry.connect(lab.uri)
    learn(f"postgresql://{password}:{password}@db.example/mlflow")
    tags = {"stlab.parity": "passed", "stlab.bundle.sha256": digest,
            "stlab.bundle.uri": "runs:/123/bundle", "stlab.parity.margin": "0.123"}  # fmt: skip
    registry.tag(model, 1, tags)
    assert lab.client.get_model_version(model, "1").tags == tags
    run = ExportRun.begin(registry, f"{model}-1-prod", {"model": model, "alias": "prod"})
    kept = lab.client.get_run(run.run_id).data.params
    assert kept == {"model": model, "alias": "prod"}  # by which `close_abandoned` finds it


@pytest.mark.triton
def test_nothing_of_a_server_to_prove_on(lab: RegistryFixture) -> None:
    """The report of an export names the server that it was proven on."""
    from exporter.commands.export.report import report_of
    from exporter.parity.evidence import Evidence

    learn(f"{SECRET}@host")
    for address in (f"grpcs://joe:{SECRET}@host:8001", f"{SECRET}@host"):
        report = report_of("net", 1, Evidence(), server=f"the Triton server at {address}")
        assert hides(str(report))
