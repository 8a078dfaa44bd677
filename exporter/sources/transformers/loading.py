"""Loads a model and its tokenizer by transformers' own classes, from the artifact alone."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from exporter.errors import ValidationFailedError, first_line
from exporter.sources.optional_libraries import require
from exporter.sources.transformers.file_checks import check_config_keys, damaged, is_safe

__all__ = ["library", "load_network", "load_tokenizer"]


def library() -> Any:
    """Import transformers so that it fetches and prints nothing.

    Raises:
        UsageError: It is not installed.
    """
    # It reads them at import.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    transformers = require("transformers", "the model is run by", "transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def load_network(transformers: Any, name: str, folder: Path, dtype: str) -> Any:
    """Load a model, in evaluation mode.

    Raises:
        ValidationFailedError: The class is none of transformers' own, or the folder is damaged.
    """
    kind = _class_of(transformers, name)
    check_config_keys(folder)
    try:
        network, loading = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=is_safe(folder),
            weights_only=True,
            attn_implementation="sdpa" if getattr(kind, "_supports_sdpa", False) else "eager",
            dtype=dtype,
            output_loading_info=True,
        )
    except Exception as error:
        raise damaged(first_line(error)) from error
    if missing := sorted(loading["missing_keys"]):
        raise ValidationFailedError(
            f"the artifact holds no weights for {', '.join(missing[:3])}: transformers draws new "
            "ones whenever it loads the model",
            hint="Train or load the whole model, and log it again.",
            kind="determinism",
        )
    # A server cannot return the cache for the next token.
    network.config.use_cache = False
    return network.eval()


def load_tokenizer(transformers: Any, folder: Path) -> Any:
    """Load a tokenizer.

    Raises:
        ValidationFailedError: It is damaged, or needs code of its own.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise damaged(f"its tokenizer: {first_line(error)}") from error


def _class_of(transformers: Any, name: str) -> Any:
    known = getattr(transformers, name, None) if name.isidentifier() else None
    if inspect.isclass(known) and issubclass(known, transformers.PreTrainedModel):
        return known
    raise ValidationFailedError(
        f"'{name}' is no model of transformers {transformers.__version__}: it would be code that "
        "the version brings, which is not run",
        hint="Log a model of one of transformers' own classes, or install the release of "
        "transformers that has it.",
        kind="flavor",
    )
