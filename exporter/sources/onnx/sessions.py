"""Opens sessions of ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from exporter.arrays import Array, Arrays, as_bytes, as_text
from exporter.errors import ValidationFailedError, first_line
from exporter.sources.onnx.checks import damaged
from exporter.sources.onnx.string_locale import use_portable_locale
from exporter.sources.optional_libraries import require

__all__ = ["load_session", "open_session", "run_session"]


def load_session(path: Path, *, threads: int = 0) -> Any:
    """Return a session of a file; the errors of ONNX Runtime derive from Exception.

    Args:
        path: The file.
        threads: How many to compute with; 0 for one per core.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """
    ort = require("onnxruntime", "ONNX models are run by", "cpu")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])


def run_session(session: Any, names: Sequence[str], inputs: Arrays) -> dict[str, Array]:
    """Return the named outputs; strings are bytes on both sides, as on the wire."""
    given = {name: as_text(array) for name, array in inputs.items()}
    return dict(zip(names, map(as_bytes, session.run(names, given)), strict=True))


def open_session(path: Path, *, english_locale: bool) -> tuple[Any, str]:
    """Return a session of a logged file, and the version of ONNX Runtime.

    Args:
        path: The file.
        english_locale: Whether it needs a locale that this system may lack; see
            `exporter.sources.onnx.string_locale`.

    Raises:
        ValidationFailedError: ONNX Runtime cannot load the file.
        UsageError: It is not installed.
    """
    version = str(require("onnxruntime", "ONNX models are run by", "cpu").__version__)
    try:
        return load_session(path), version
    except Exception as error:
        if not (english_locale and "locale" in str(error)):
            raise damaged(f"ONNX Runtime {version} cannot load it: {first_line(error)}") from error
    # In the same folder, which may hold the file's external data.
    portable = path.with_name(f"{path.stem}.portable.onnx")
    try:
        proto = onnx.load(path, load_external_data=False)
        use_portable_locale(proto)
        onnx.save(proto, portable)
        return load_session(portable), version
    except Exception as error:
        raise ValidationFailedError(
            "the ONNX model changes the case of texts by the rules of a language, of which this "
            f"system knows none: {first_line(error)}",
            hint="Install the locale C.UTF-8 or en_US.UTF-8.",
            kind="target",
        ) from error
    finally:
        portable.unlink(missing_ok=True)
