"""What a person sees of the scores."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from beft_lightning.scoring.report import ranking_table
from beft_lightning.scoring.score_table import BiasScores, TermScore


@pytest.fixture
def scores() -> BiasScores:
    terms = {
        "key": TermScore(layers=[0.0, 0.0], inert=True, parameters=64),
        "value": TermScore(layers=[0.2, 0.6], inert=False, parameters=1234),
        "query": TermScore(layers=[0.1, 0.1], inert=False, parameters=64),
    }
    return BiasScores("projection", "bert", 8, terms, selected=["value"])


def render(scores: BiasScores, width: int = 160) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(ranking_table(scores))
    return [line for line in console.export_text().splitlines() if any(f" {term} " in line for term in scores.terms)]


def test_the_table_lists_the_terms_in_order_and_says_what_was_selected(scores: BiasScores) -> None:
    first, second, third = render(scores)
    assert "value" in first
    assert "selected" in first
    assert "1,234" in first
    assert "25.0%" in second
    assert "key" in third
    assert "inert" in third


def test_shares_are_those_of_the_best_live_term(scores: BiasScores) -> None:
    """Batches may agree in the rounding noise of an inert term, which then has the highest signal."""
    scores.terms["key"] = replace(scores.terms["key"], layers=[0.8, 0.8])
    first, second, third = render(scores)
    assert ["100.0%" in first, "25.0%" in second, "%" in third] == [True, True, False]


def test_the_table_says_what_noise_alone_would_score(scores: BiasScores) -> None:
    for approach, said in (("projection", False), ("gradient_signal", True)):
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(ranking_table(replace(scores, approach=approach)))
        assert ("Noise alone scores 0.125." in console.export_text()) == said


def test_the_table_shows_leads_and_their_spread(scores: BiasScores) -> None:
    first, second, third = render(scores)
    assert " 75% " in first  # of 0.4
    for term, course in (("value", [0.2, 0.4]), ("query", [0.1, 0.1]), ("key", [0.0, 0.0])):
        scores.terms[term] = replace(scores.terms[term], history=course)
    first, second, third = render(scores)
    assert " 75% ± 50% " in first
    assert "±" not in second + third


def test_terms_and_numbers_stay_whole_on_a_narrow_terminal(scores: BiasScores) -> None:
    scores.terms["attention_output"] = TermScore(layers=[2.045e-8], inert=False, parameters=1_228_800)
    row = render(scores, width=80)[2]
    assert all(part in row for part in (" attention_output ", " 2.045e-08 ", " 1,228,800 "))


def test_the_table_names_selected_layers(scores: BiasScores) -> None:
    scores.selected = ["value.1", "query.0"]
    first, second, _ = render(scores)
    assert "selected: layers 1" in first
    assert "selected: layers 0" in second


def test_the_table_of_scores_that_are_all_zero(scores: BiasScores) -> None:
    scores.terms = {"key": scores.terms["key"]}
    assert "0%" not in render(scores)[0]
