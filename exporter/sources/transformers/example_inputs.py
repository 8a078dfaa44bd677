"""The example inputs of a transformers model: tokenized texts, or images."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from exporter.arrays import Array, Arrays
from exporter.errors import ValidationFailedError, first_line

__all__ = ["example_texts", "image_inputs", "token_inputs"]

MOST_TEXTS = 8
# Longer texts are truncated: attention costs the square of the length, in every case.
MOST_TOKENS = 64


def token_inputs(tokenizer: Any, network: Any, texts: Sequence[str]) -> Arrays:
    """Return the logged texts, with others of the tokenizer's own vocabulary, as one padded batch.

    The others make sure of several rows, of rows with padding and, where the model distinguishes
    sentences, of pairs. Arrays are int64 ``[rows, tokens]``.

    Raises:
        ValidationFailedError: The model takes more than this tokenizer makes.
    """
    most = min(MOST_TOKENS, _positions(network) // 2)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    cut = {"truncation": True, "max_length": most}
    try:
        long, short = _made(tokenizer, most // 2), _made(tokenizer, most // 6)
        rows = [tokenizer(text, **cut) for text in (*texts[:MOST_TEXTS], long, short)]
        if "token_type_ids" in rows[0]:
            rows.append(tokenizer(short, long, **cut))
        padded = tokenizer.pad(rows, padding=True, return_tensors="np")
    except Exception as error:
        raise ValidationFailedError(
            f"the logged tokenizer cannot be used: {first_line(error)}",
            hint="Log the model again, as a pipeline or with a tokenizer that has a padding token.",
            kind="artifact",
        ) from error
    taken = inspect.signature(network.forward).parameters
    arrays = {
        name: np.asarray(values, dtype=np.int64) for name, values in padded.items() if name in taken
    }
    if network.main_input_name not in arrays:
        raise ValidationFailedError(
            f"{type(network).__name__} takes '{network.main_input_name}', which the logged "
            f"tokenizer does not make (it makes: {', '.join(padded) or 'nothing'})",
            hint="Models of texts are exported with their tokenizer, models of images with their "
            "image processor; log any other module with mlflow.pytorch.",
            kind="interface",
        )
    return arrays


def image_inputs(network: Any) -> Arrays:
    """Return normalised images of the model's size: float32 ``[rows, channels, height, width]``.

    Raises:
        ValidationFailedError: Its config has no image size.
    """
    size = getattr(network.config, "image_size", None)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = getattr(network.config, "num_channels", 3)
    if network.main_input_name != "pixel_values" or not isinstance(height, int):
        raise ValidationFailedError(
            f"{type(network).__name__} was logged without a tokenizer, and is no model of images "
            "of one size",
            hint="Log it as a pipeline, with its tokenizer; or its module with mlflow.pytorch.",
            kind="interface",
        )
    drawn: Array = np.random.default_rng(0).normal(size=(3, channels, height, width))
    return {"pixel_values": drawn.astype(np.float32)}


def example_texts(values: Any) -> list[str]:
    """Return every text of a logged example, at any depth."""
    if isinstance(values, dict) and {"columns", "data"} <= set(values):
        values = values["data"]
    return [text for text in _strings(values) if text.strip()]


def _strings(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _strings(value)


def _positions(network: Any) -> int:
    known = getattr(network.config, "max_position_embeddings", None)
    return known if isinstance(known, int) and known > 0 else 2 * MOST_TOKENS


def _made(tokenizer: Any, count: int) -> str:
    """A text of words that the tokenizer knows."""
    special = set(tokenizer.all_special_ids)
    known = [number for number in range(len(tokenizer)) if number not in special]
    random = np.random.default_rng(count)
    text: str = tokenizer.decode(random.choice(known, max(1, count)).tolist())
    return text
