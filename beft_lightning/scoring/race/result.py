"""The result of a race."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from beft_lightning.errors import ScoringError
from beft_lightning.files import finite_or_none
from beft_lightning.scoring.race.entrant import Lap
from beft_lightning.scoring.race.gap import Gap, gap


@dataclass(frozen=True)
class Placed:
    """An entrant after the race.

    Args:
        term: Name of the candidate.
        rate: Learning rate.
        laps: Its evaluations, at least one.
    """

    term: str
    rate: float
    laps: list[Lap]

    @property
    def batches(self) -> int:
        """Training batches that it has had."""
        return self.laps[-1].batches

    @property
    def loss(self) -> float:
        """Its mean held-out loss at the end."""
        return self.laps[-1].loss

    def gap_to(self, other: "Placed") -> Gap:
        """Compare with another entrant at the last evaluation where both had had as many batches."""
        theirs = {lap.batches: lap.losses for lap in other.laps}
        common = [lap for lap in self.laps if lap.batches in theirs][-1]
        return gap(common.losses, theirs[common.batches])


@dataclass(frozen=True)
class RaceCost:
    """What a race has cost.

    Args:
        training_batches: Batches trained on, over all entrants.
        held_out_batches: Batches evaluated, without a backward pass.
        seconds: Wall-clock time.
        fit_batches: Training batches of the fit that follows; ``None`` if it has no set length.
    """

    training_batches: int
    held_out_batches: int
    seconds: float
    fit_batches: int | None

    @property
    def batches(self) -> float:
        """All batches; held-out ones count half."""
        return self.training_batches + self.held_out_batches / 2

    @property
    def share_of_fit(self) -> float | None:
        """The batches as a share of the fit's; ``None`` where the fit has no set length."""
        return self.batches / self.fit_batches if self.fit_batches else None


@dataclass(frozen=True)
class RaceResult:
    """The result of a race.

    Args:
        entrants: All entrants.
        initial: Loss of the checkpoint on each held-out batch.
        cost: What the race has cost.
    """

    entrants: list[Placed]
    initial: list[float]
    cost: RaceCost

    @cached_property
    def ranking(self) -> list[Placed]:
        """Entrants from best to worst: by how far they came, then by their loss; those that diverged come last."""
        return sorted(self.entrants, key=lambda each: (not math.isfinite(each.loss), -each.batches, each.loss))

    @property
    def winner(self) -> Placed:
        """The best entrant, whether or not others tie with it."""
        return self.ranking[0]

    @cached_property
    def best_of_terms(self) -> dict[str, Placed]:
        """Term -> its best entrant, from the best term to the worst."""
        best: dict[str, Placed] = {}
        for entrant in self.ranking:
            best.setdefault(entrant.term, entrant)
        return best

    @property
    def ties(self) -> list[str]:
        """Other terms whose best entrant was not told apart from the winner when it was last compared with it."""
        others = [entrant for term, entrant in self.best_of_terms.items() if term != self.winner.term]
        return [entrant.term for entrant in others if entrant.gap_to(self.winner).is_tie]

    @property
    def has_learnt(self) -> bool:
        """Whether the winner's held-out loss lies below the checkpoint's by more than the spread."""
        return not gap(self.initial, self.winner.laps[-1].losses).is_tie

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain types; the loss of an entrant that has diverged is ``None``."""
        entrants = [
            {
                "term": entrant.term,
                "rate": entrant.rate,
                "batches": [lap.batches for lap in entrant.laps],
                "losses": [[finite_or_none(loss) for loss in lap.losses] for lap in entrant.laps],
            }
            for entrant in self.entrants
        ]
        cost = asdict(self.cost) | {"batches": self.cost.batches, "share_of_fit": self.cost.share_of_fit}
        return {"entrants": entrants, "initial": self.initial, "cost": cost}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` gives.

        Raises:
            ScoringError: If it is something else.
        """
        try:
            entrants = [
                Placed(
                    str(entrant["term"]),
                    float(entrant["rate"]),
                    [
                        Lap(int(batches), [math.inf if loss is None else float(loss) for loss in losses])
                        for batches, losses in zip(entrant["batches"], entrant["losses"], strict=True)
                    ],
                )
                for entrant in content["entrants"]
            ]
            cost = content["cost"]
            names = ("training_batches", "held_out_batches", "seconds", "fit_batches")
            result = cls(entrants, [float(loss) for loss in content["initial"]], RaceCost(*(cost[n] for n in names)))
        except (KeyError, TypeError, ValueError) as error:
            raise ScoringError(f"not the result of a race: {type(error).__name__} {error}.") from error
        if not entrants or not all(entrant.laps and entrant.laps[-1].losses for entrant in entrants):
            raise ScoringError("not the result of a race: every entrant needs an evaluation.")
        return result
