"""Loads a model and its tokenizer by transformers' own classes, from the artifact alone.

The artifact is checked before anything of it is loaded.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.bounded_text import UNFIT, parse_json
from exporter.errors import ValidationFailedError, first_line
from exporter.names import artifact_path
from exporter.sources.optional_libraries import cannot_load, require
from exporter.sources.safe_loading import check_pickle_allowed

__all__ = ["check_files", "library", "load_network", "load_tokenizer"]

_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", _INDEX)
# Keys of a config with which transformers loads more than the weights, or changes them.
_UNSUPPORTED = (
    "quantization_config",
    "transformers_weights",
    "fusion_config",
    "distributed_config",
)


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


def check_files(
    facts: Mapping[str, Any], folder: Path, components: Path, *, allow_pickle: bool
) -> None:
    """Refuse an artifact that is incomplete or would run code.

    Raises:
        ValidationFailedError: It is an adapter, holds no weights, or code or a pickle.
    """
    if facts.get("peft_adaptor") or (folder / "adapter_config.json").is_file():
        raise ValidationFailedError(
            "the version is an adapter (PEFT) of a base model",
            hint="Log the merged model: model.merge_and_unload().",
            kind="flavor",
        )
    if not folder.is_dir():
        raise ValidationFailedError(
            "the version holds no weights, only the name of a model on a hub "
            f"({facts.get('source_model_name') or 'none'})",
            hint="Log it with save_pretrained=True, or call mlflow.transformers."
            "persist_pretrained_model() on the version.",
            kind="artifact",
        )
    code = sorted(p.name for p in (*folder.rglob("*.py"), *components.rglob("*.py")))
    if code and not allow_pickle:
        raise ValidationFailedError(
            f"the version was not loaded: it brings code of its own ({', '.join(code)})",
            hint="Log it without that code, or trust its author with --allow-pickle; the "
            "code is not run in any case.",
            kind="unsafe",
        )
    _check_weights(folder, allow_pickle=allow_pickle)


def _check_weights(folder: Path, *, allow_pickle: bool) -> None:
    if (folder / _INDEX).is_file():
        try:
            named = set(parse_json(folder / _INDEX)["weight_map"].values())
        except UNFIT as error:
            raise _damaged(f"{_INDEX} cannot be read: {error}") from error
        for name in named:
            artifact_path(str(name))
    if any(folder.glob("shard-*.safetensors")):
        raise ValidationFailedError(
            "the weights are a checkpoint of several processes",
            hint="Load the model in one process, and log it again.",
            kind="flavor",
        )
    if not _is_safe(folder):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if not pickled:
            files = sorted(path.name for path in folder.glob("*"))
            raise _damaged(f"it holds no weights, but {', '.join(files) or 'nothing'}")
        check_pickle_allowed(pickled[0], "safe_serialization=True", allow_pickle=allow_pickle)


def load_network(transformers: Any, name: str, folder: Path, dtype: str) -> Any:
    """Load a model, in evaluation mode.

    Raises:
        ValidationFailedError: The class is none of transformers' own, or the folder is damaged.
    """
    kind = _class_of(transformers, name)
    _check_config_keys(folder)
    try:
        network, loading = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=_is_safe(folder),
            weights_only=True,
            attn_implementation="sdpa" if getattr(kind, "_supports_sdpa", False) else "eager",
            dtype=dtype,
            output_loading_info=True,
        )
    except Exception as error:
        raise cannot_load("the model", error) from error
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
        raise _damaged(f"its tokenizer: {first_line(error)}") from error


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


def _is_safe(folder: Path) -> bool:
    """Whether a model's weights are kept as plain numbers."""
    return any((folder / name).is_file() for name in _WEIGHTS)


def _check_config_keys(folder: Path) -> None:
    """Refuse a config that would load more than the weights."""
    try:
        config = dict(parse_json(folder / "config.json"))
    except (OSError, *UNFIT) as error:
        raise _damaged(f"config.json cannot be read: {error}") from error
    for key in _UNSUPPORTED:
        if config.get(key) is not None:
            raise ValidationFailedError(
                f"the model's config.json has a '{key}', which this release cannot prove",
                hint="Log the model in float32 or float16, with all weights in its own file.",
                kind="flavor",
            )


def _damaged(reason: str) -> ValidationFailedError:
    return cannot_load("the model", ValueError(reason))
