"""Our flags and the user's."""

from __future__ import annotations

from pathlib import Path

from exporter.triton.flags import flag_names, flag_value, key_flags, merge_flags, safe_flags
from exporter.triton.runtime import Runtime


def test_a_flag_of_the_users_wins() -> None:
    ours = ["--http-port=8000", "--grpc-port=8001", "--disable-auto-complete-config"]
    assert merge_flags(ours, ["--http-port", "9000"]) == [*ours[1:], "--http-port", "9000"]
    assert merge_flags(ours, ["--http-port=9000"]) == [*ours[1:], "--http-port=9000"]


def test_another_name_for_a_flag_counts() -> None:
    ours = ["--disable-auto-complete-config", "--model-repository=/a"]
    assert merge_flags(ours, ["--strict-model-config=false"]) == [
        "--model-repository=/a",
        "--strict-model-config=false",
    ]
    assert merge_flags(ours, ["--model-store=/b"]) == [
        "--disable-auto-complete-config",
        "--model-store=/b",
    ]


def test_backend_settings_add_up() -> None:
    ours = ["--backend-config=python,a=1"]
    assert merge_flags(ours, ["--backend-config=python,b=2"]) == [
        *ours,
        "--backend-config=python,b=2",
    ]


def test_no_flag_of_the_users_opens_what_takes_the_key() -> None:
    control = "model-repository,shared-memory,trace,logging"
    assert key_flags("k") == [
        f"--grpc-restricted-protocol={control}:stlab=k",
        f"--http-restricted-api={control}:stlab=k",
    ]
    for theirs in (
        ["--grpc-restricted-protocol=inference,shared-memory:mine=x"],
        ["--grpc-restricted-protocol", "inference,shared-memory:mine=x"],
    ):
        # tritonserver takes each API once, and refuses to start otherwise.
        ours = key_flags("k", theirs)
        assert ours == [
            "--grpc-restricted-protocol=model-repository,trace,logging:stlab=k",
            f"--http-restricted-api={control}:stlab=k",
        ]
        assert merge_flags(ours, theirs) == [*ours, *theirs]


def test_the_last_value_of_a_flag_counts() -> None:
    assert flag_value([], "--grpc-port", "8001") == "8001"
    assert flag_value(["--grpc-port=1", "--grpc-port", "2"], "--grpc-port", "8001") == "2"


def test_names() -> None:
    assert flag_names(["--a=1", "--b", "--c", "1", "value"]) == {"--a", "--b", "--c"}


def test_the_server_is_kept_to_loopback() -> None:
    flags = safe_flags(Runtime(executable=Path("/x"), backend_directory=Path("/backends")))
    for endpoint in ("http", "grpc", "metrics"):
        assert f"--{endpoint}-address=127.0.0.1" in flags
    assert "--backend-directory=/backends" in flags
    assert not any("backend-directory" in flag for flag in safe_flags(Runtime(Path("/x"))))
