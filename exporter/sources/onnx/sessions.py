"""Has ONNX Runtime load a file as it was logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from exporter.errors import UsageError, ValidationFailedError, first_line
from exporter.sources.onnx.checks import damaged
from exporter.sources.onnx.string_locale import use_portable_locale

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["open_session"]


def open_session(path: Path, *, english: bool) -> tuple[Any, str]:
    """Return a session on the CPU, and the version of ONNX Runtime.

    Args:
        path: The file.
        english: Whether it needs a locale that this system may lack; see
            `exporter.sources.onnx.string_locale`.

    Raises:
        ValidationFailedError: ONNX Runtime cannot load the file.
        UsageError: It is not installed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UsageError(
            "the reference of an ONNX model is run by onnxruntime, which is not installed",
            hint="pip install 'stlab[cpu]' (or 'stlab[gpu]').",
        ) from error
    try:
        return _load(ort, path), ort.__version__
    except Exception as error:
        if not (english and "locale" in str(error)):
            raise damaged(
                f"ONNX Runtime {ort.__version__} cannot load it: {first_line(error)}"
            ) from error
    # Beside the file, where its external data lies.
    elsewhere = path.with_name(f"{path.stem}.everywhere.onnx")
    try:
        proto = onnx.load(path, load_external_data=False)
        use_portable_locale(proto)
        onnx.save(proto, elsewhere)
        return _load(ort, elsewhere), ort.__version__
    except Exception as error:
        raise ValidationFailedError(
            "the ONNX model changes the case of texts by the rules of a language, of which this "
            f"system knows none: {first_line(error)}",
            hint="Install the locale C.UTF-8 or en_US.UTF-8.",
            kind="target",
        ) from error
    finally:
        elsewhere.unlink(missing_ok=True)


def _load(ort: Any, path: Path) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
