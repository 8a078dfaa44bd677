from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.triton.credentials import Credentials

SECRET = "open-sesame-1234"


def test_an_environment_that_says_nothing_changes_nothing() -> None:
    for environment in ({}, {"STLAB_TRITON_KEY": "", "STLAB_TRITON_CA": ""}):
        assert Credentials.of(environment).for_server("host:8001") == {"url": "host:8001"}


def test_the_key_is_never_shown() -> None:
    credentials = Credentials.of({"STLAB_TRITON_KEY": SECRET})
    assert credentials.for_server("host:8001")["protocol_keys"] == {"stlab": SECRET}
    assert SECRET not in repr(credentials)


def test_a_secret_that_ends_a_line() -> None:
    assert Credentials.of({"STLAB_TRITON_KEY": f"{SECRET}\n"}).key == SECRET


def test_half_of_a_pair(tmp_path: Path) -> None:
    file = tmp_path / "client.pem"
    file.write_text("")
    for name in ("STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY"):
        with pytest.raises(UsageError, match="belong together"):
            Credentials.of({name: str(file)})


@pytest.mark.parametrize("name", ["STLAB_TRITON_CA", "STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"{name} names .*nowhere\.pem, which cannot be read"):
        Credentials.of({name: str(tmp_path / "nowhere.pem")})
