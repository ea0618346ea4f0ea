"""The selection rule."""

import pytest

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.score_table import BiasScores, TermScore
from beft_lightning.scoring.selection import SelectionRule


def test_the_best_live_terms_are_selected_and_never_an_inert_one(scores: BiasScores) -> None:
    assert SelectionRule().select(scores) == ["value"]
    assert SelectionRule(2).select(scores) == ["value", "query"]
    with pytest.raises(ScoringError, match="cannot keep 3 of the 2.*inert and therefore left out: key"):
        SelectionRule(3).select(scores)


def test_single_layers_can_be_selected(scores: BiasScores) -> None:
    assert SelectionRule(3, per_layer=True).select(scores) == ["value.1", "query.1", "value.0"]


def test_a_budget_takes_the_best_layers_that_fit() -> None:
    terms = {
        "query": TermScore(layers=[0.9, 0.1], inert=False, parameters=20),
        "key": TermScore(layers=[2.0, 2.0], inert=True, parameters=2),
        "value": TermScore(layers=[0.5, 0.8], inert=False, parameters=6),
    }
    scores = BiasScores("fisher", "bert", 1, terms)
    assert SelectionRule(budget=26).select(scores) == ["query.0", "value.1", "value.0", "query.1"]
    assert SelectionRule(budget=25).select(scores) == ["query.0", "value.1", "value.0"]
    assert SelectionRule(budget=12).select(scores) == ["query.0"]
    assert SelectionRule(budget=9).select(scores) == ["value.1", "value.0"]
    with pytest.raises(ScoringError, match=r"budget of 2 values is too small .*\(query: 10, value: 3\)"):
        SelectionRule(budget=2).select(scores)


@pytest.mark.parametrize(
    ("rule", "largest", "words"),
    [
        (SelectionRule(), ["query"], "1 of query, value"),
        (SelectionRule(3, per_layer=True), ["query.0", "query.1", "value.0"], "3 layers of query, value"),
        (SelectionRule(budget=14), ["query.0", "value.0"], "at most 14 values of query, value"),
    ],
)
def test_the_largest_selection_is_known_without_scores(rule: SelectionRule, largest: list[str], words: str) -> None:
    assert rule.largest({"query": [10, 10], "value": [4, 3]}) == largest
    assert rule.describe(["query", "value"]) == words
