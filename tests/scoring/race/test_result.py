"""Order, ties and files of a race's result."""

import json
import math

import pytest

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.race.entrant import Lap
from beft_lightning.scoring.race.report import race_table, race_warning, verdict
from beft_lightning.scoring.race.result import Placed, RaceCost, RaceResult
from beft_lightning.scoring.race.scores import RaceScores


def result(second: list[float], initial: float = 2.0) -> RaceResult:
    """Value won against query, whose losses after 8 batches are ``second``; key came as far as 4 batches."""
    return RaceResult(
        [
            Placed("key", 1e-3, [Lap(4, [0.1, 0.1, 0.1])]),
            Placed("query", 1e-3, [Lap(4, [1.0, 1.0, 1.0]), Lap(8, second)]),
            Placed("query", 1.0, [Lap(4, [math.inf] * 3)]),
            Placed("value", 1e-2, [Lap(4, [1.0, 1.2, 1.1]), Lap(8, [0.5, 0.7, 0.6])]),
        ],
        [initial] * 3,
        RaceCost(20, 18, 1.5, 100),
    )


def test_who_came_further_ranks_higher() -> None:
    """Even if a loss that was lower after fewer batches was dropped: this is what happened, not a mean."""
    found = result([0.9, 1.1, 1.0])
    assert list(found.best_of_terms) == ["value", "query", "key"]
    assert found.ranking[-1].loss == math.inf
    assert found.best_of_terms["query"].rate == 1e-3


def test_gaps_are_taken_where_both_had_as_many_batches() -> None:
    found = result([0.9, 1.1, 1.0])
    key = found.best_of_terms["key"].gap_to(found.winner)
    assert key.difference == pytest.approx(0.1 - 1.1)
    assert found.best_of_terms["query"].gap_to(found.winner).difference == pytest.approx(0.4)


def test_the_verdict_names_ties_and_wins() -> None:
    clear = RaceResult(result([0.9, 1.1, 1.0]).entrants[1:], [2.0] * 3, RaceCost(20, 18, 1.5, 100))
    assert not clear.ties
    assert "'value' at learning rate 0.01 won" in verdict(clear)
    assert race_warning(clear) is None
    close = result([0.4, 0.9, 0.6])
    assert close.ties == ["query", "key"]
    assert verdict(close).startswith("A tie: 'value'")
    assert "3 held-out batches) after 8 training batches each" in verdict(close)
    assert race_warning(close) == verdict(close)


def test_a_race_in_which_nobody_learns_warns() -> None:
    assert "no candidate has lowered" in str(race_warning(result([0.9, 1.1, 1.0], initial=0.6)))


def test_cost_counts_held_out_batches_half() -> None:
    cost = RaceCost(20, 18, 1.5, 100)
    assert (cost.batches, cost.share_of_fit) == (29, 0.29)
    assert RaceCost(20, 18, 1.5, None).share_of_fit is None


def test_scores_survive_their_file() -> None:
    scores = RaceScores("bert", result([0.9, 1.1, 1.0]), {"value": 8, "query": 8, "key": 8, "norm": 4}, ["norm"])
    content = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert RaceScores.from_dict(content) == scores
    assert content["ranking"] == ["value", "query", "key", "norm"]
    assert content["terms"]["value"]["score"] == pytest.approx(1.4)
    assert content["rate"] == 1e-2
    assert scores.to_csv().splitlines()[1].startswith("value,0.01,4,1.")
    assert race_table(scores).row_count == 4


@pytest.mark.parametrize("broken", [{"race": {}}, {"terms": {}}, {"terms": None}])
def test_a_damaged_file_is_an_error(broken: dict[str, object]) -> None:
    content = RaceScores("bert", result([0.9, 1.1, 1.0]), {"value": 8, "query": 8, "key": 8}).to_dict()
    with pytest.raises(ScoringError, match="not the"):
        RaceScores.from_dict({**content, **broken})
