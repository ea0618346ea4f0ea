"""Successive halving within an allowance."""

from itertools import pairwise

import pytest

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.race.race import planned_rounds
from beft_lightning.scoring.race.rounds import rounds
from beft_lightning.scoring.race.settings import RaceSettings


@pytest.mark.parametrize("entrants", [1, 2, 3, 9, 20])
@pytest.mark.parametrize("allowance", [60, 500, 2000])
def test_rounds_halve_and_double_within_the_allowance(entrants: int, allowance: int) -> None:
    settings = RaceSettings(batches=4, held_out=4, allowance=allowance)
    found = rounds(entrants, settings)
    assert sum(each.cost for each in found) <= allowance
    for before, after in pairwise(found):
        assert after.batches == 2 * before.batches
        assert after.entrants == max(min(2, before.entrants), -(-before.entrants // 2))
        assert after.cost == after.entrants * (after.batches - before.batches + 2)


def test_the_last_two_go_on_while_the_allowance_lasts() -> None:
    found = rounds(4, RaceSettings(batches=2, held_out=2, allowance=200))
    assert [each.entrants for each in found] == [4, 2, 2, 2, 2, 2]
    assert found[-1].batches == 64


def test_one_entrant_runs_once() -> None:
    assert len(rounds(1, RaceSettings())) == 1


def test_an_allowance_below_the_first_round_is_an_error() -> None:
    with pytest.raises(ScoringError, match="allowance is 10 batches, and a first round of 3 entrants .* takes 72"):
        planned_rounds(3, RaceSettings(allowance=10))


@pytest.mark.parametrize(
    "options", [{"rates": (0.0,)}, {"rates": (1e-3, 1e-3)}, {"batches": 0}, {"held_out": 1}, {"allowance": 0}]
)
def test_impossible_settings_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(ScoringError, match=f"race.{next(iter(options))}"):
        RaceSettings(**options)  # type: ignore[arg-type]
