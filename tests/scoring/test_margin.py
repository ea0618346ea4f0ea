"""How sure a term's lead is."""

import math
from statistics import mean, stdev

import pytest

from beft_lightning.scoring.margin import margin_spread
from beft_lightning.scoring.score_table import BiasScores, TermScore

#: What each batch says of two terms, made up.
FIRST = [3.0, 1.0, 2.5, 4.0, 0.5]
SECOND = [1.0, 2.0, 1.5, 1.0, 1.0]


def means(values: list[float]) -> list[float]:
    return [mean(values[: i + 1]) for i in range(len(values))]


def sums(values: list[float]) -> list[float]:
    return [sum(values[: i + 1]) for i in range(len(values))]


def test_for_means_it_is_the_standard_error_of_paired_differences() -> None:
    differences = [one - other for one, other in zip(FIRST, SECOND, strict=True)]
    expected = 2 * stdev(differences) / math.sqrt(len(differences))
    assert margin_spread(means(FIRST), means(SECOND), averages=True) == pytest.approx(expected)


def test_for_sums_it_is_that_of_the_sum() -> None:
    differences = [one - other for one, other in zip(FIRST, SECOND, strict=True)]
    expected = 2 * stdev(differences) * math.sqrt(len(differences))
    assert margin_spread(sums(FIRST), sums(SECOND), averages=False) == pytest.approx(expected)


def test_it_has_the_unit_of_the_scores_and_no_direction() -> None:
    spread = margin_spread(FIRST, SECOND, averages=False)
    assert spread is not None
    assert margin_spread(SECOND, FIRST, averages=False) == pytest.approx(spread)
    assert margin_spread([10 * x for x in FIRST], [10 * x for x in SECOND], averages=False) == pytest.approx(
        10 * spread
    )


@pytest.mark.parametrize("approach", ["projection", "fisher"])
def test_a_single_batch_has_no_spread_and_is_no_tie(approach: str) -> None:
    assert margin_spread([1.0], [0.9], averages=approach == "fisher") is None
    scores = table(approach, value=[1.0], query=[0.9])
    assert scores.margins["value"].spread is None
    assert scores.near_tie is None


def test_a_growing_margin_is_sure_and_a_wavering_one_is_not() -> None:
    steady = table("projection", value=[0.1, 0.3, 0.6, 1.0], query=[0.0, 0.0, 0.1, 0.1])
    assert steady.margins["value"].difference == pytest.approx(0.9)
    assert steady.near_tie is None
    wavering = table("projection", value=[0.1, 0.3, 0.6, 1.0], query=[0.0, 0.5, 0.4, 0.9])
    assert wavering.margins["value"].over == "query"
    assert wavering.near_tie == "value"


def test_the_tie_is_at_the_edge_of_the_selection() -> None:
    scores = table("projection", value=[1.0, 2.0, 3.0], query=[1.0, 1.9, 2.95], key=[0.1, 0.0, 0.2])
    everything = ["value", "query", "key"]
    ties: list[str | None] = []
    for scores.selected in (["value"], ["value", "query"], everything, ["value.0"], []):
        ties.append(scores.near_tie)
    assert ties == ["value", None, None, None, None]


def test_an_inert_term_is_led_by_nobody() -> None:
    scores = table("projection", value=[1.0, 2.0, 3.0], query=[0.1, 0.2, 0.2], key=[1.0, 2.0, 2.9])
    scores.terms["key"] = TermScore([2.9], inert=True, parameters=1, history=[1.0, 2.0, 2.9])
    assert [margin.over for margin in scores.margins.values()] == ["query"]


def table(approach: str, **histories: list[float]) -> BiasScores:
    terms = {
        term: TermScore([history[-1]], inert=False, parameters=1, history=history)
        for term, history in histories.items()
    }
    return BiasScores(approach, "bert", len(histories["value"]), terms, selected=["value"])
