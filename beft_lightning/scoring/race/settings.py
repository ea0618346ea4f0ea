"""The settings of a race."""

from dataclasses import dataclass, replace

from beft_lightning.errors import ScoringError


@dataclass(frozen=True)
class RaceSettings:
    """Settings of a race.

    Args:
        rates: Learning rates to try each candidate at; none keeps the rate of the fit's optimizer.
        batches: Training batches of each candidate in the first round; each later round goes on to twice as many.
        held_out: Training batches to judge by, which no candidate is trained on; at most half of an epoch's.
        allowance: Most batches in all. A held-out batch, which needs no backward pass, counts half. By default half of
            the fit's batches, but at most 1,024 and no less than the first round.
        seed: Seed of the choice of the held-out batches, the order of the others, and dropout.
    """

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    batches: int = 16
    held_out: int = 16
    allowance: int | None = None
    seed: int = 0

    def in_steps(self, together: int) -> "RaceSettings":
        """Return the settings with whole optimizer steps in each round.

        Args:
            together: Batches whose gradients an optimizer step accumulates.
        """
        return replace(self, batches=-(-self.batches // together) * together)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ScoringError: If one is impossible.
        """
        if not all(rate > 0 for rate in self.rates) or len(set(self.rates)) < len(self.rates):
            raise ScoringError(f"race.rates are {list(self.rates)}: each must be above 0, and named once.")
        allowance = 1 if self.allowance is None else self.allowance
        if self.batches < 1 or self.held_out < 2 or allowance < 1:
            raise ScoringError(
                f"race.batches ({self.batches}) and race.allowance ({allowance}) must be at least 1, "
                f"race.held_out ({self.held_out}) at least 2."
            )
