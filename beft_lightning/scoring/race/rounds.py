"""The rounds of a race: successive halving."""

from dataclasses import dataclass

from beft_lightning.scoring.race.settings import RaceSettings


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


def rounds(entrants: int, settings: RaceSettings) -> list[Round]:
    """Return the rounds that the allowance pays for, should the last two entrants stay close together.

    After each round the better half goes on, to twice as many batches; the last two go on together.

    Args:
        entrants: Number of entrants at the start.
        settings: The settings of the race.

    Returns:
        The rounds; none if the allowance is too small for the first.

    >>> [(each.entrants, each.batches) for each in rounds(9, RaceSettings(batches=8, held_out=2, allowance=200))]
    [(9, 8), (5, 16), (3, 32)]
    """
    found: list[Round] = []
    spent, before, batches = 0.0, 0, settings.batches
    while True:
        cost = entrants * (batches - before + settings.held_out / 2)
        if spent + cost > settings.allowance:
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
