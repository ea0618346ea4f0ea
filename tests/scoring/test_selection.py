"""The selection rule."""

from pathlib import Path

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


def test_layers_of_unequal_size_are_paid_for_by_their_own() -> None:
    terms = {"value": TermScore(layers=[0.9, 0.5], inert=False, parameters=48)}
    scores, sizes = BiasScores("fisher", "swin", 1, terms), {"value": [[16], [16, 16]]}
    assert SelectionRule(budget=16).select(scores, sizes) == ["value.0"]
    assert SelectionRule(budget=47).select(scores, sizes) == ["value.0"]
    assert SelectionRule(budget=48).select(scores, sizes) == ["value.0", "value.1"]
    with pytest.raises(ScoringError, match=r"\(value: 16\)"):
        SelectionRule(budget=15).select(scores, sizes)


@pytest.mark.parametrize(
    ("rule", "largest", "words"),
    [
        (SelectionRule(), ["query"], "1 of query, value"),
        (SelectionRule(3, per_layer=True), ["query.0", "query.1", "value.0"], "3 layers of query, value"),
        (SelectionRule(budget=14), ["query.0", "value.0"], "at most 14 values of query, value"),
        (SelectionRule(3, per_head=True), ["query.0.h0", "query.0.h1", "query.1.h0"], "3 heads of query, value"),
        (
            SelectionRule(budget=11, per_head=True),
            ["query.0.h0", "query.0.h1"],
            "at most 11 values of heads of query",
        ),
    ],
)
def test_the_largest_selection_is_known_without_scores(rule: SelectionRule, largest: list[str], words: str) -> None:
    assert rule.largest({"query": [[5, 5], [5, 5]], "value": [[4], [3]]}) == largest
    assert rule.describe(["query", "value"]).startswith(words)


@pytest.fixture
def scores_of_heads() -> BiasScores:
    """Heads of two values, of two layers of two heads each. Some are tied; the inert ones have the highest scores."""
    scores = {
        "query": [[0.9, 0.1], [0.5, 0.2]],
        "key": [[2.0, 2.0], [2.0, 2.0]],
        "value": [[0.5, 0.3], [0.8, 0.5]],
    }
    terms = {t: TermScore([sum(layer) for layer in heads], t == "key", 8, heads=heads) for t, heads in scores.items()}
    return BiasScores("gradient", "bert", 1, terms)


def test_single_heads_are_selected_ties_in_the_order_of_terms(scores_of_heads: BiasScores) -> None:
    best = ["query.0.h0", "value.1.h0", "value.0.h0", "value.1.h1", "query.1.h0"]
    assert SelectionRule(5, per_head=True).select(scores_of_heads) == best
    assert SelectionRule(budget=5, per_head=True).select(scores_of_heads) == best[:2]
    with pytest.raises(ScoringError, match="cannot keep 9 of the 8 selectable heads of terms .*left out: key"):
        SelectionRule(9, per_head=True).select(scores_of_heads)
    with pytest.raises(ScoringError, match="budget of 1 values is too small for any of the live heads of terms"):
        SelectionRule(budget=1, per_head=True).select(scores_of_heads)


def test_layers_and_heads_are_not_both_selected() -> None:
    with pytest.raises(ScoringError, match="per_layer and per_head .*leave out one"):
        SelectionRule(per_layer=True, per_head=True)


def test_scores_of_heads_are_in_the_files_on_request_alone(
    scores: BiasScores, scores_of_heads: BiasScores, tmp_path: Path
) -> None:
    for name, table in (("terms", scores), ("heads", scores_of_heads)):
        (tmp_path / name).mkdir()
        table.save(tmp_path / name)
    assert "heads" not in (tmp_path / "terms" / "scores.json").read_text()
    assert BiasScores.load(tmp_path / "heads" / "scores.json") == scores_of_heads
    header, first, *_ = (tmp_path / "heads" / "scores.csv").read_text().splitlines()
    assert header.endswith("layer_0,layer_1,layer_0_h0,layer_0_h1,layer_1_h0,layer_1_h1")
    assert first == "value,b_v,1.05,False,8,0.8,1.3,0.5,0.3,0.8,0.5"
    layers = {"query": 2, "value": 2}
    with pytest.raises(ScoringError, match="no scores of single heads of query, value: score again with per_head"):
        BiasScores.load_for(tmp_path / "terms" / "scores.json", "projection", "bert", layers, True)
