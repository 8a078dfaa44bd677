r"""How skl2onnx is to write text vectorizers, so that words are those of scikit-learn.

Without options skl2onnx splits texts by ``[a-zA-Z0-9_]+``: words with other letters fall apart, and
words of one letter, which scikit-learn drops, stand between others. ONNX Runtime's Tokenizer takes
the expressions of RE2, in which ``\w`` is ASCII; letters and numbers of all scripts are ``\p{L}``
and ``\p{N}``, as Python's `str.isalnum` has them.

Sources: skl2onnx ``operator_converters/text_vectoriser.py``; RE2's syntax,
https://github.com/google/re2/wiki/Syntax; Python's `re`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.errors import ValidationFailedError

__all__ = ["text_options"]

_WORD = r"[\p{L}\p{N}_]"
# Runs of letters are whole words in either library: \b says nothing more.
_EXPRESSIONS = {
    r"\b\w\w+\b": rf"{_WORD}{{2,}}",
    r"\b\w+\b": rf"{_WORD}+",
    r"\w+": rf"{_WORD}+",
    r"\w\w+": rf"{_WORD}{{2,}}",
    r"\b\w{2,}\b": rf"{_WORD}{{2,}}",
    r"\S+": r"[^\s\p{Z}]+",
}


def text_options(estimator: Any) -> dict[int, dict[str, str]]:
    """Return skl2onnx's options for the vectorizers of a fitted estimator, by their identity.

    Raises:
        ValidationFailedError: One has no ONNX form.
    """
    found = {}
    for vectorizer in _vectorizers(estimator):
        _check(vectorizer)
        pattern = str(vectorizer.token_pattern).removeprefix("(?u)")
        if vectorizer.analyzer == "word" and pattern in _EXPRESSIONS:
            found[id(vectorizer)] = {"tokenexp": _EXPRESSIONS[pattern]}
    return found


def _vectorizers(estimator: Any) -> Iterator[Any]:
    if hasattr(estimator, "build_analyzer") and hasattr(estimator, "vocabulary_"):
        yield estimator
    inner = [part for _, part in getattr(estimator, "steps", ())]
    inner += [entry[1] for entry in getattr(estimator, "transformer_list", ())]
    inner += [entry[1] for entry in getattr(estimator, "transformers_", ())]
    inner += [getattr(estimator, name) for name in ("regressor_",) if hasattr(estimator, name)]
    for part in inner:
        yield from _vectorizers(part)


def _check(vectorizer: Any) -> None:
    name = type(vectorizer).__name__
    if vectorizer.ngram_range[1] > 1 and vectorizer.get_stop_words():
        raise ValidationFailedError(
            f"{name} with stop words and n-grams of several words has no ONNX form: ONNX's n-grams "
            "do not skip the stop words between two words",
            hint="Leave stop_words out and let min_df or max_df drop frequent words, or use "
            "ngram_range=(1, 1).",
            kind="convert",
        )
    if vectorizer.tokenizer is not None or vectorizer.preprocessor is not None:
        raise ValidationFailedError(
            f"{name} with a tokenizer or preprocessor of its own has no ONNX form",
            hint="Use token_pattern, and prepare texts before they are sent.",
            kind="convert",
        )
