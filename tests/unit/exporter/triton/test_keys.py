"""The files that hold the keys of this user's servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.errors import ConflictError
from exporter.triton.credentials import Credentials
from exporter.triton.keys import LocalKey, ServerKey

PORT = 8001


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STLAB_CACHE", str(tmp_path))
    monkeypatch.delenv("STLAB_TRITON_KEY", raising=False)
    return tmp_path / "servers"


def sent(url: str) -> dict[str, str | bytes]:
    """What a command sends to a server."""
    arguments = Credentials.of(os.environ).for_server(url)
    return dict(arguments["headers"]()) if "headers" in arguments else {}


def test_a_command_finds_the_key_of_a_server_on_this_machine(folder: Path) -> None:
    key = ServerKey.claim(PORT)
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    header = {"triton-grpc-protocol-stlab": key.value}
    for url in (f"localhost:{PORT}", f"127.0.0.1:{PORT}", f"grpc://localhost:{PORT}"):
        arguments = Credentials.of(os.environ).for_server(url)
        # Another user may listen on ::1, which localhost is as well.
        assert arguments["url"] == f"127.0.0.1:{PORT}"
        assert sent(url) == header
    key.remove()
    key.remove()
    assert sent(f"localhost:{PORT}") == {}
    assert not list(folder.iterdir())


def test_no_other_server_is_sent_a_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ServerKey.claim(PORT)
    for url in (
        f"grpcs://localhost:{PORT}",
        f"host:{PORT}",
        f"127.0.0.2:{PORT}",
        f"[::1]:{PORT}",
        f"localhost.example:{PORT}",
        f"localhost:{PORT + 1}",
        f"dns:///localhost:{PORT}",
        "unix:/tmp/socket",
    ):
        assert sent(url) == {}, url
    monkeypatch.setenv("STLAB_TRITON_KEY", "chosen")
    arguments = Credentials.of(os.environ).for_server(f"localhost:{PORT}")
    assert arguments == {"url": f"localhost:{PORT}", "protocol_keys": {"stlab": "chosen"}}


def test_a_server_that_starts_again_has_another_key(folder: Path) -> None:
    find = LocalKey(PORT)
    first = ServerKey.claim(PORT)
    assert find() == {"triton-grpc-protocol-stlab": first.value}
    first.remove()
    second = ServerKey.claim(PORT)
    assert second.value != first.value
    assert find() == {"triton-grpc-protocol-stlab": second.value}


def test_a_port_that_is_none_is_left_to_the_server(folder: Path) -> None:
    for port in ("abc", "", "-1", "8001x"):
        key = ServerKey.for_server(["--grpc-address=127.0.0.1", f"--grpc-port={port}"])
        assert "is not a port" in key.problem
        assert not folder.exists()


def test_two_servers_do_not_share_a_file(folder: Path) -> None:
    first = ServerKey.claim(PORT)
    with pytest.raises(ConflictError, match="gRPC port 8001") as caught:
        ServerKey.claim(PORT)
    assert "--grpc-port" in caught.value.hint
    assert sent(f"localhost:{PORT}") == {"triton-grpc-protocol-stlab": first.value}
    assert ServerKey.claim(PORT + 1).value != first.value


def test_what_a_killed_server_left_is_replaced(folder: Path) -> None:
    left = ServerKey.claim(PORT)
    os.close(left._file)  # as the kernel does
    assert ServerKey.claim(PORT).value != left.value


def test_a_file_that_others_could_have_written_is_not_believed(
    folder: Path, tmp_path: Path
) -> None:
    key = ServerKey.claim(PORT)
    (file,) = folder.iterdir()
    url = f"localhost:{PORT}"

    def forged() -> Iterator[str]:
        """Each way to leave a file, by what is wrong with it."""
        file.chmod(0o644)
        yield "readable by others"
        file.chmod(0o600)
        file.write_text("Bearer some-other-secret")
        yield "no key"
        file.unlink()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_text(key.value)
        elsewhere.chmod(0o600)
        file.symlink_to(elsewhere)
        yield "a link"
        file.unlink()
        os.mkfifo(file, 0o600)
        yield "a pipe"
        if os.geteuid() == 0:  # only root can give files away
            file.unlink()
            file.write_text(key.value)
            file.chmod(0o600)
            os.chown(file, 65534, 65534)
            yield "another user's"

    for what in forged():
        assert sent(url) == {}, what


def test_without_a_place_for_the_file_the_server_still_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STLAB_CACHE", str(tmp_path / "file"))
    key = ServerKey.claim(PORT)
    assert len(key.value) == 43
    assert "cannot be written" in key.problem
    assert "127.0.0.1" in ServerKey.for_server(["--grpc-address=10.0.0.1"]).problem
