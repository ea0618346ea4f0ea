"""The rounds of a race: successive halving."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.race.settings import RaceSettings

#: The allowance that nobody has set: a share of the fit's batches, and the most batches.
SHARE, MOST = 0.5, 1024


@dataclass(frozen=True)
class Round:
    """A round of a race.

    Args:
        entrants: Number of entrants in it.
        batches: Training batches that each entrant has had after it.
        cost: Batches of this round in all; held-out ones count half.
    """

    entrants: int
    batches: int
    cost: float


def rounds(entrants: int, settings: RaceSettings, fit_batches: float = math.inf) -> list[Round]:
    """Return the rounds that the allowance pays for, should the last two entrants stay close together.

    After each round the better half goes on, to twice as many batches; the last two go on together.

    Args:
        entrants: Number of entrants at the start.
        settings: The settings of the race.
        fit_batches: Training batches of the fit that follows; infinite if it has no set length, or there is none.

    Raises:
        ScoringError: If the allowance is too small for the first round.

    >>> [(each.entrants, each.batches) for each in rounds(9, RaceSettings(batches=8, held_out=2, allowance=200))]
    [(9, 8), (5, 16), (3, 32)]
    """
    first = entrants * (settings.batches + settings.held_out / 2)
    allowance = settings.allowance
    if allowance is not None and first > allowance:
        raise ScoringError(
            f"race.allowance is {allowance} batches, and a first round of {entrants} entrants (candidates times rates) "
            f"on {settings.batches} batches each takes {first:g}: raise it, or name fewer."
        )
    found: list[Round] = []
    spent, before, batches = 0.0, 0, settings.batches
    most = max(first, min(SHARE * fit_batches, MOST)) if allowance is None else allowance
    while True:
        cost = entrants * (batches - before + settings.held_out / 2)
        if spent + cost > most:
            return found
        spent += cost
        found.append(Round(entrants, batches, cost))
        if entrants == 1:
            return found
        entrants = survivors(entrants)
        before, batches = batches, 2 * batches


def survivors(entrants: int) -> int:
    """Return how many of a round's entrants go on: the better half, rounded up, but two to compare.

    >>> [survivors(count) for count in (1, 2, 3, 4, 9)]
    [1, 2, 2, 2, 5]
    """
    return max(min(entrants, 2), (entrants + 1) // 2)


def cost_of(planned: Sequence[Round]) -> float:
    """Return the batches that a race takes at most; held-out ones count half."""
    return sum(each.cost for each in planned)


def announcement(planned: Sequence[Round], fit_batches: float) -> str:
    """Return in words what a race is going to cost.

    >>> announcement(rounds(6, RaceSettings(), 1008), 1008)
    'A race of 6 entrants (candidates times rates): at most 440 batches, 44% of the 1,008 of the fit.'
    """
    cost = cost_of(planned)
    share = f", {cost / fit_batches:.0%} of the {fit_batches:,.0f} of the fit" if math.isfinite(fit_batches) else ""
    return f"A race of {planned[0].entrants} entrants (candidates times rates): at most {cost:,.0f} batches{share}."
