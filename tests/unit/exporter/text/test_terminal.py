"""Text from outside draws nothing, moves nothing and begins no line of its own on a terminal."""

from __future__ import annotations

import logging
import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter.cli import output, tables
from exporter.commands.doctor.command import DoctorResult
from exporter.commands.doctor.installed import Check
from exporter.commands.export.result import ExportResult
from exporter.commands.infer.result import InferResult
from exporter.commands.prune import PruneResult
from exporter.commands.status.drift import Drift
from exporter.commands.status.result import AliasState, ModelState, StatusResult
from exporter.commands.status.snapshot import Published
from exporter.commands.verify import ServerVerdict, VerifyResult
from exporter.errors import UnavailableError
from exporter.registry import PromotionRecord
from exporter.text.terminal import block, one_line

STYLE = re.compile(r"\x1b\[[0-9;]*m")
ATTACKS = (
    "\x1b[31mred\x1b[0m", "\x1b]8;;http://thief\x1b\\click\x1b]8;;\x1b\\", "\x9b31m", "\x07\x08\r",
    "a\nhint: run this", "\u202egnp.exe", "\u2066x\u2069", "[red]x[/]", "[link=http://thief]x[/]",
    "[/]", "\\[bold]", ":boom:", "\ud800", "\u2028", "\x00",
)  # fmt: skip


def everything(text: str) -> None:
    """Print all that is printed for people, with a text in every place from outside."""
    record = PromotionRecord(text, text, text, 1, text, text, text, text)
    drift = Drift("damaged", text, text)
    state = AliasState(
        text,
        1,
        record,
        True,
        0.5,
        text,
        Published(text, text, True),
        True,
        False,
        {text: None},
        (drift,),
    )
    bundle = {"sha256": text, "format": text, "bytes": 1, "reused": False}
    parity = {
        "passed": True, "margin": 0.1, "cases": 1, "batching": text, "batching_reason": text,
        "strength": "weak", "coverage": {text: {"seen": 1, "known": 2}}, "warnings": [text],
    }  # fmt: skip
    tables.print_status(StatusResult(text, (ModelState(text, (state,), (drift,)),)))
    tables.print_verified(
        VerifyResult("failed", text, text, 1, bundle, (ServerVerdict(text, False, reason=text),))
    )
    tables.print_pruned(PruneResult("planned", text, kept={1: text}))
    tables.print_checks(DoctorResult(text, (Check(text, "ok", text, text),)))
    tables.print_result(
        ExportResult(
            "promoted", text, text, 1, None, bundle, parity, text, plan=(text,), report=text
        )
    )
    answer = np.array([text.encode("utf-8", "replace")], object)
    tables.print_answer(InferResult(text, 1, 0.1, {text: answer}))
    output.print_error(UnavailableError(text, hint=text))
    progress = output.Progress()
    progress.end(text, 1.0, failed=False)
    progress.say(text, text)
    output.print_traceback(RuntimeError(text))
    output.set_up_logging()
    logging.getLogger("stlab").error("%s", text)


@pytest.mark.parametrize("colours", [False, True])
def test_no_control_reaches_a_terminal(
    colours: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LOG_FORMAT", raising=False)
    monkeypatch.setenv(*(("FORCE_COLOR", "1") if colours else ("NO_COLOR", "1")))

    def printed(text: str) -> tuple[str, str]:
        everything(text)
        return capsys.readouterr()

    plain = printed("plain")
    styles = set(STYLE.findall("".join(plain)))
    assert bool(styles) is colours

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.text(st.characters(), min_size=1, max_size=12))
    def check(text: str) -> None:
        out, err = printed(text)
        # What rich draws is ours: the same styles as around a harmless text.
        assert set(STYLE.findall(out + err)) == styles
        rest = STYLE.sub("", out + err)
        assert not [c for c in rest if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs"}]
        begun = [line for line in err.splitlines() if line.startswith(("error:", "hint:", "ERROR"))]
        assert len(begun) == 3

    for attack in ATTACKS:
        check = example(attack)(check)
    check()


def test_what_is_harmless_stays_readable() -> None:
    assert one_line("größe  ✓ 模型\n[red]") == "größe ✓ 模型 [red]"
    assert block("one\ntwo") == "one\n  two"
    assert one_line("\x1b[31m") == r"\x1b[31m"


def test_json_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    text: Any = "".join(ATTACKS)
    output.print_json({"text": text})
    line = capsys.readouterr().out
    assert json.loads(line) == {"text": text}
    assert line.isascii()
    assert line.count("\n") == 1
