"""Texts that reach what a fitted vectorizer knows: its words in ways that converters differ on."""

from __future__ import annotations

import itertools
from typing import Any

__all__ = ["texts_of"]

_WORDS_A_TEXT = 8
_MOST_WORDS = 4096
# Each is put between two words; characters that belong to a word in some alphabets and token
# patterns and not in others: underscores, digits, apostrophes, hyphens, accents, other scripts.
_BETWEEN = (
    "  ", "\t", "\n", ", ", ". ", "-", "'", "_", "/", "…", " a ", " I ", " 1 ", " 42 ", " é ",
    " ß ", " naïve ", " Ünïcödé ", " 東京 ", " x' ", " #tag ", " a@b.co ", "\u00a0",
)  # fmt: skip
_PLAIN = ("", " ", "a", "é", "!!!", "Größe", "ÇA", "東京", "a b", "don't", "x_1 2")


def texts_of(vectorizer: Any) -> tuple[list[str], list[int], int]:
    """Return texts, how many terms of the vocabulary each is the first to show, and all terms.

    The terms of the vocabulary come first, some in each text; then words joined by what may stand
    between them: stop words, one letter, punctuation, spaces; and words in capitals.
    """
    vocabulary = [str(term) for term in getattr(vectorizer, "vocabulary_", {})]
    terms = vocabulary[:: max(1, -(-len(vocabulary) // _MOST_WORDS))]
    texts, counts = [], []
    for start in range(0, len(terms), _WORDS_A_TEXT):
        part = terms[start : start + _WORDS_A_TEXT]
        texts.append(" ".join(part))
        counts.append(len(part))
    others = [*_PLAIN, *_joined(vectorizer, terms)]
    # The one letter whose lower case is two characters in Python, and one in ONNX Runtime. Its
    # words are in few vocabularies, and those of others would be refused for it.
    others += [term.replace("i\u0307", "\u0130") for term in terms if "i\u0307" in term][:8]
    return texts + others, counts + [0] * len(others), len(vocabulary)


def _joined(vectorizer: Any, terms: list[str]) -> list[str]:
    words = list(dict.fromkeys(word for term in terms for word in term.split()))[:64]
    stop = sorted(vectorizer.get_stop_words() or ())[:8]
    if not words:
        return []
    pairs = itertools.cycle(zip(words, [*words[1:], words[0]], strict=True))
    joined = [
        f"{first}{between}{second}"
        for between, (first, second) in zip(
            (*_BETWEEN, *(f" {s} " for s in stop)), pairs, strict=False
        )
    ]
    # Terms of several words: their words with a stop word between them, and the other way round.
    for term in [term for term in terms if " " in term][:16]:
        parts = term.split()
        joined += [f" {word} ".join(parts) for word in stop[:2]]
        joined.append(" ".join(reversed(parts)))
    some = words[:_WORDS_A_TEXT]
    repeated = " ".join(some[:1] * 5 + some)
    return [*joined, " ".join(some).upper(), " ".join(some).title(), repeated]
