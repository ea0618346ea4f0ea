"""Successive halving within an allowance."""

from itertools import pairwise

import pytest

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.race.rounds import announcement, cost_of, rounds
from beft_lightning.scoring.race.settings import RaceSettings


@pytest.mark.parametrize("entrants", [1, 2, 3, 9, 20])
@pytest.mark.parametrize("allowance", [120, 500, 2000])
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


def test_rounds_are_whole_optimizer_steps() -> None:
    found = rounds(2, RaceSettings(batches=4, held_out=2, allowance=200).in_steps(16))
    assert [each.batches for each in found] == [16, 32, 64]
    assert cost_of(found) <= 200
    assert RaceSettings(batches=4).in_steps(1) == RaceSettings(batches=4)
    with pytest.raises(ScoringError, match="a first round of 2 entrants .* on 16 batches each takes 34"):
        rounds(2, RaceSettings(batches=4, held_out=2, allowance=20).in_steps(16))


def test_one_entrant_runs_once() -> None:
    assert len(rounds(1, RaceSettings())) == 1


def test_an_allowance_below_the_first_round_is_an_error() -> None:
    with pytest.raises(ScoringError, match="allowance is 10 batches, and a first round of 3 entrants .* takes 72"):
        rounds(3, RaceSettings(allowance=10))


def test_a_race_takes_half_of_the_fit_unless_told_otherwise() -> None:
    """But its first round always, and no more than 1,024 batches, which is also the most where there is no fit."""
    assert cost_of(rounds(6, RaceSettings(), 1008)) <= 504 < cost_of(rounds(6, RaceSettings(), 10_000))
    assert [each.batches for each in rounds(6, RaceSettings(), 63)] == [16]
    assert cost_of(rounds(6, RaceSettings(), 10_000)) <= 1024
    assert rounds(6, RaceSettings()) == rounds(6, RaceSettings(), 10_000)
    assert cost_of(rounds(6, RaceSettings(allowance=1024), 63)) > 504


def test_the_cost_is_announced() -> None:
    short = announcement(rounds(6, RaceSettings(), 63), 63)
    assert short == "A race of 6 entrants (candidates times rates): at most 144 batches, 229% of the 63 of the fit."
    assert announcement(rounds(1, RaceSettings()), float("inf")).endswith("at most 24 batches.")


@pytest.mark.parametrize(
    "options", [{"rates": (0.0,)}, {"rates": (1e-3, 1e-3)}, {"batches": 0}, {"held_out": 1}, {"allowance": 0}]
)
def test_impossible_settings_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(ScoringError, match=f"race.{next(iter(options))}"):
        RaceSettings(**options)  # type: ignore[arg-type]
