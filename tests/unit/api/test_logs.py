"""A line of the log is one that the service began, and holds no secret."""

from __future__ import annotations

import json
import logging

import pytest

from stlab_api.logs import set_up

TEXT = "\x1b[31mred\x1b[0m\n2026-01-01 ERROR forged http://joe:s3cret@host \u202e"


@pytest.mark.parametrize("form", ["text", "json"])
def test_text_from_outside(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up("INFO", form)
    try:
        log = logging.getLogger("stlab_api.service")
        log.info("it says %s", TEXT, extra={"fields": {"path": TEXT}})
        log.error("it failed", exc_info=ValueError(TEXT))
    finally:
        logging.getLogger("stlab_api").handlers = []
        logging.getLogger("stlab_api").propagate = True
        logging.getLogger("stlab_api").setLevel(logging.NOTSET)
    said = capsys.readouterr().err
    assert "s3cret" not in said
    assert not set("\x1b\x9b\u202e") & set(said)
    if form == "json":
        first, second = map(json.loads, said.splitlines())
        assert first["path"].startswith(TEXT[:8])
        assert "forged" in second["error"]
    else:
        begun = [line for line in said.splitlines() if not line.startswith("  ")]
        assert len(begun) == 2
