"""Scores of a predicted text against acceptable answers, as SQuAD, DROP and ROUGE define them."""

import re
import string
from collections.abc import Sequence
from typing import Any

from torchmetrics.functional.text import squad
from torchmetrics.functional.text.rouge import rouge_score

_PUNCTUATION = set(string.punctuation)


def answer_f1(prediction: str, answers: Sequence[Sequence[str]]) -> float:
    """Return SQuAD's token F1 (Rajpurkar et al. 2016, arXiv 1606.05250), the best over all answers' spans.

    As in the official script of v1.1, it is 0 where prediction and answer share no word, so also where both are empty
    after normalisation. Their exact match is 1 all the same.
    """
    # torchmetrics follows v2.0, where two empty texts stand for "no answer" and score 1.
    empty = answer_em(prediction, [("",)]) == 1
    return 0.0 if empty else _squad(prediction, answers)["f1"]


def answer_em(prediction: str, answers: Sequence[Sequence[str]]) -> float:
    """Return SQuAD's exact match after normalisation, the best over all acceptable answers' spans."""
    return _squad(prediction, answers)["exact_match"]


def _squad(prediction: str, answers: Sequence[Sequence[str]]) -> dict[str, float]:
    texts = [span for spans in answers for span in spans]
    target: dict[str, Any] = {"answers": {"answer_start": [0] * len(texts), "text": texts}, "id": "0"}
    scores = squad([{"prediction_text": prediction, "id": "0"}], [target])
    return {name: float(score) / 100 for name, score in scores.items()}


def rouge(name: str, prediction: str, answers: Sequence[Sequence[str]]) -> float:
    """Return ROUGE's F-measure (Lin 2004) without stemming, the best over all acceptable answers' spans.

    Only the letters a to z and digits count, so that it suits English alone.

    Args:
        name: ``rouge1`` and ``rouge2`` count common words and pairs of words, ``rougeL`` the longest common sequence.
        prediction: The predicted text.
        answers: The acceptable answers.
    """
    texts = [span for spans in answers for span in spans]
    scores = rouge_score(prediction, texts, accumulate="best", rouge_keys=name)
    return float(scores[f"{name}_fmeasure"])


def drop_em(prediction: str, answers: Sequence[Sequence[str]]) -> float:
    """Return DROP's exact match: the predicted span is the answer's only one; the best over the acceptable answers."""
    return max(float([drop_normalise(prediction)] == [drop_normalise(span) for span in spans]) for spans in answers)


def drop_f1(prediction: str, answers: Sequence[Sequence[str]]) -> float:
    """Return DROP's F1 (Dua et al. 2019, arXiv 1903.00161), the best over the acceptable answers.

    A prediction is one span; it is aligned with the answer's most similar span, and the others count as missed. If
    an answer's span holds numbers, the prediction must share one of them.
    """
    return max(round(_aligned_f1(prediction, spans), 2) for spans in answers)


def _aligned_f1(prediction: str, spans: Sequence[str]) -> float:
    predicted = set(drop_normalise(prediction).split())
    return max(_bag_f1(predicted, set(drop_normalise(span).split())) for span in spans) / len(spans)


def _bag_f1(predicted: set[str], expected: set[str]) -> float:
    numbers = {token for token in expected if _is_number(token)}
    if numbers and not numbers & predicted:
        return 0.0
    common = len(predicted & expected)
    if not predicted or not expected:
        return float(predicted == expected)
    return 2 * common / (len(predicted) + len(expected))


def drop_normalise(text: str) -> str:
    """Return lower-case words without punctuation and articles, and numbers in one form (``1,000`` and ``1000.0``)."""
    tokens = (_normalise_token(token) for token in re.split(r"[ -]", text.lower()))
    return " ".join(token for token in tokens if token)


def _normalise_token(token: str) -> str:
    if not _is_number(token):
        token = "".join(character for character in token if character not in _PUNCTUATION)
    if _is_number(token):
        return str(float(token))
    return " ".join(word for word in token.split() if word not in ("a", "an", "the"))


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True
