"""Classifiers of texts, of which the logged example has no text on which converters go wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlflow.models import ModelSignature, infer_signature
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from .comparing import Array
from .tabular import Estimator

__all__ = ["TEXTS", "TextEstimator"]

_FILMS = (
    "a good film with a good plot",
    "the film was bad and the plot was worse",
    "very good indeed and well made",
    "a bad plot in a bad film",
    "good actors and a slow plot",
    "not a film that I would see again",
    "the café in the film is lovely",
    "die größe of the screen is bad",
    "a naïve and über slow film",
    "state of the art film in 3 d",
)
_GOOD = np.array([1, 0, 1, 0, 1, 0, 1, 0, 0, 1])
_HARMLESS = ("good film", "bad plot", "very slow film", "good actors")


@dataclass(frozen=True)
class TextEstimator(Estimator):
    """A pipeline that takes a list of texts.

    Attributes:
        plain: The texts of the logged example.
        hidden: The texts that requests hold, again and again.
    """

    plain: Sequence[str] = _HARMLESS
    hidden: Sequence[str] = ()

    @property
    def example(self) -> Any:
        return list(self.plain)

    @property
    def signature(self) -> ModelSignature:
        return infer_signature(self.example, self.fitted.predict(self.example))

    def rows(self, count: int) -> dict[str, Array]:
        """Return hidden texts as one tensor of one column."""
        texts = [self.hidden[place % len(self.hidden)] for place in range(count)]
        return {"text": np.array(texts, dtype=object)[:, None]}

    def answers(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return labels with probabilities, or a prediction."""
        texts = list(inputs["text"][:, 0])
        if hasattr(self.fitted, "predict_proba"):
            return [self.fitted.predict(texts), self.fitted.predict_proba(texts)]
        return [self.fitted.predict(texts)]


def _fitted(vectorizer: Any, head: Any = None) -> Callable[[], Pipeline]:
    return lambda: make_pipeline(vectorizer, head or LogisticRegression(C=10)).fit(_FILMS, _GOOD)


def _texts(
    name: str, vectorizer: Any, hidden: Sequence[str], *, head: Any = None, **more: Any
) -> TextEstimator:
    return TextEstimator(name, _fitted(vectorizer, head), form="cloudpickle", hidden=hidden, **more)


TEXTS: tuple[TextEstimator, ...] = (
    _texts("tfidf-accents", TfidfVectorizer(),
           ("the café", "die größe of it", "a naïve café", "CAFÉ über GRÖßE"), refused="output"),
    _texts("bigrams-stop-words",
           CountVectorizer(ngram_range=(1, 2), stop_words=["a", "and", "the", "was", "in"]),
           ("plot and the film", "bad in a film", "good and slow the plot", "film was the bad"),
           refused="stop words and n-grams"),
    _texts("sublinear-tf", TfidfVectorizer(sublinear_tf=True),
           ("good good good film", "bad bad", "slow slow slow slow", "film film plot plot plot")),
    _texts("one-letter-words", TfidfVectorizer(token_pattern=r"(?u)\b\w+\b"),
           ("I would", "a d", "3 d", "I a 3", "x y z")),
    _texts("token-pattern", CountVectorizer(token_pattern=r"[a-z]{3,}"),
           ("film2good", "go on", "bad_plot", "actors4slow", "caf\u00e9 film")),
    _texts("case-kept", CountVectorizer(lowercase=False),
           ("Good Film", "I BAD", "die Gr\u00f6\u00dfe", "GOOD good", "Plot")),
    _texts("lower-case", CountVectorizer(),
           ("GOOD FILM", "Bad Plot", "\u0130t is \u00dcBER", "NA\u00cfVE", "STRASSE")),
    _texts("hashed-words", HashingVectorizer(n_features=64),
           ("caf\u00e9 noir", "unseen words only", "good, bad", "", "3 d")),
    _texts("character-n-grams", CountVectorizer(analyzer="char", ngram_range=(1, 3)),
           ("good  film", "ca f\u00e9", "gr\u00f6\u00dfe", "a.b", "")),
    _texts("character-n-grams-of-words", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3)),
           ("good, film", "caf\u00e9", "x", "na\u00efve-slow", "  ")),
    _texts("punctuation", TfidfVectorizer(),
           ("good-film", "don't, bad!", "plot...slow", "state-of-the-art", "bad_plot (worse)")),
    _texts("empty-text", TfidfVectorizer(), ("", "   ", "!?", "unseen", "\n")),
    _texts("accents-stripped", TfidfVectorizer(strip_accents="unicode"),
           ("cafe", "caf\u00e9", "groesse gr\u00f6\u00dfe", "naive na\u00efve", "\u00fcber uber")),
    _texts("counted-once", CountVectorizer(binary=True),
           ("good good good", "bad bad film", "slow slow plot plot", "film film film"),
           head=Ridge()),
    _texts("white-space", CountVectorizer(ngram_range=(2, 2)),
           ("good\tplot", "bad\nfilm", "bad \u00a0 film", "slow    plot", "  good film  ")),
)  # fmt: skip
