"""Checks an artifact of the transformers flavor before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.bounded_text import UNFIT, parse_json
from exporter.errors import ValidationFailedError
from exporter.names import artifact_path
from exporter.sources.optional_libraries import cannot_load
from exporter.sources.safe_loading import check_pickle_allowed

__all__ = ["check_config_keys", "check_files", "damaged", "is_safe"]

_INDEX = "model.safetensors.index.json"
_WEIGHTS = ("model.safetensors", _INDEX)
# Keys of a config with which transformers loads more than the weights, or changes them.
_UNSUPPORTED = (
    *("quantization_config", "transformers_weights", "fusion_config", "distributed_config"),
)


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
            raise damaged(f"{_INDEX} cannot be read: {error}") from error
        for name in named:
            artifact_path(str(name))
    if any(folder.glob("shard-*.safetensors")):
        raise ValidationFailedError(
            "the weights are a checkpoint of several processes",
            hint="Load the model in one process, and log it again.",
            kind="flavor",
        )
    if not is_safe(folder):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        if not pickled:
            files = sorted(path.name for path in folder.glob("*"))
            raise damaged(f"it holds no weights, but {', '.join(files) or 'nothing'}")
        check_pickle_allowed(pickled[0], "safe_serialization=True", allow_pickle=allow_pickle)


def is_safe(folder: Path) -> bool:
    """Whether a model's weights are kept as plain numbers."""
    return any((folder / name).is_file() for name in _WEIGHTS)


def check_config_keys(folder: Path) -> None:
    """Refuse a config that would load more than the weights.

    Raises:
        ValidationFailedError: It has such keys, or cannot be read.
    """
    try:
        config = dict(parse_json(folder / "config.json"))
    except (OSError, *UNFIT) as error:
        raise damaged(f"config.json cannot be read: {error}") from error
    for key in _UNSUPPORTED:
        if config.get(key) is not None:
            raise ValidationFailedError(
                f"the model's config.json has a '{key}', which this release cannot prove",
                hint="Log the model in float32 or float16, with all weights in its own file.",
                kind="flavor",
            )


def damaged(reason: str) -> ValidationFailedError:
    """Return the error for an artifact that cannot be loaded."""
    return cannot_load("the model", ValueError(reason))
