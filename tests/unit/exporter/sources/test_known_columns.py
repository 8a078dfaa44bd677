"""What fitted estimators know of their columns, and texts that reach it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from exporter.sources.known_values import CATEGORIES, MISSING, SPLITS, UNKNOWN
from exporter.sources.sklearn.known_texts import texts_of
from exporter.sources.sklearn.known_values import known_of_columns


def test_columns_are_those_of_the_input() -> None:
    rows = np.array([[5.0, 0.0, 1.0], [np.nan, 10.0, 2.0], [7.0, 20.0, 1.0], [6.0, 30.0, 3.0]])
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((OneHotEncoder(), [2]), (scaled, [0]), ("passthrough", [1]))
    found = {(v.column, v.kind): v.values for v in known_of_columns(columns.fit(rows), 3)}
    assert found[2, CATEGORIES] == [1.0, 2.0, 3.0]
    assert found[2, UNKNOWN] == [4.0, 0.0]
    assert np.isnan(found[0, MISSING][0])
    # A tree behind a scaler splits between 10 and 20 of the column before it.
    tree = make_pipeline(StandardScaler(), DecisionTreeRegressor(max_depth=1))
    (splits,) = known_of_columns(tree.fit(rows[:, 1:2], [0.0, 0.0, 1.0, 1.0]), 1)
    assert (splits.column, splits.kind) == (0, SPLITS)
    low, high = splits.values
    assert low < 15 < high


def test_every_word_is_in_some_text_and_stop_words_are_between_words() -> None:
    learned = ["the café is a nice place", "größe of the house", "über the moon"]
    vectorizer = CountVectorizer(ngram_range=(1, 2), stop_words=["the", "is", "of"]).fit(learned)
    texts, counts, known = texts_of(vectorizer)
    assert (sum(counts), known) == (len(vectorizer.vocabulary_), len(vectorizer.vocabulary_))
    assert (vectorizer.transform(texts).toarray().sum(0) > 0).all()
    assert any(f" {stop} " in text for text in texts for stop in ("the", "is", "of"))
    assert "" in texts
    assert any(text.isupper() for text in texts)
