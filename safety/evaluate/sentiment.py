"""The sentiment of texts, by VADER's lexicon and rules (Hutto and Gilbert 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


def sentiment(texts: Sequence[str]) -> NDArray[np.float64]:
    """[texts], from -1 (negative) to 1; 0 is a text without a word of the lexicon."""
    return np.array([_analyser().polarity_scores(text)["compound"] for text in texts], np.float64)


@cache
def _analyser() -> SentimentIntensityAnalyzer:
    """It reads its lexicon once."""
    return SentimentIntensityAnalyzer()
