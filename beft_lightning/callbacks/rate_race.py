"""Choose the learning rate of a fit by a short race."""

import time
from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.callbacks.bias_selection import BiasSelectionCallback
from beft_lightning.callbacks.selection_checks import RACE
from beft_lightning.callbacks.training_checks import check_scorable
from beft_lightning.errors import BeftError
from beft_lightning.scoring.race.fit import give_rate
from beft_lightning.scoring.race.race import run_race
from beft_lightning.scoring.race.report import cost_in_words
from beft_lightning.scoring.race.result import RaceResult
from beft_lightning.scoring.race.settings import RaceSettings
from beft_lightning.strategies.adaptation import adapt, release

#: Half decades, from what suits all weights to what suits a few biases: the same for every way of training.
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


class RateRace(Callback):
    """Train for a few batches at each of some learning rates, and fit at the best one.

    Works with whatever a module trains: biases, LoRA, all weights, or what a BiasSelectionCallback selects. Each rate
    starts from the checkpoint, and is judged by the loss on held-out training batches, as in a race of bias terms; it
    leaves no trace. Each rate that still runs keeps its own copy of what is trained and of the buffers, and its
    optimizer's state.

    Args:
        rates: Learning rates to try.
        batches: Training batches at each rate in the first round; each later round goes on to twice as many.
        held_out: Training batches to judge by, which no rate is trained on; at most half of an epoch's.
        allowance: Most batches in all. A held-out batch, which needs no backward pass, counts half. By default half of
            the fit's batches, but at most 1,024 and no less than the first round.
        seed: Seed of the choice of the held-out batches, the order of the others, and dropout.

    Example::

        trainer = Trainer(callbacks=[RateRace()])
        trainer.fit(my_module, my_datamodule)
    """

    def __init__(
        self,
        rates: Sequence[float] = RATES,
        batches: int = 16,
        held_out: int = 16,
        allowance: int | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = RaceSettings(tuple(rates), batches, held_out, allowance, seed)
        if not rates:
            raise BeftError("rates is empty: give the learning rates to try.")
        #: The result, once the race was run.
        self.result: RaceResult | None = None
        #: Wall-clock time of the race.
        self.seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Arrange for the race, before the optimizer is built."""
        strategy, self.result = adapt(trainer.strategy), None
        if stage == "fit":
            self.seconds = 0.0
            check_scorable(pl_module)
            _check_alone(trainer)
            # Behind the actions of all callbacks, whatever their order: what is trained must have been selected.
            strategy.before_restore(lambda: strategy.before_optimizers(lambda: self._race(trainer, pl_module)))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the trainer its strategy back."""
        release(trainer.strategy)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the learning rate."""
        if self.result is not None:
            give_rate(trainer, self.result.winner.rate)

    def _race(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is not None:
            return  # The optimizer's state, which a resumed fit goes on with, has the rate.
        start = time.perf_counter()
        trained = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        self.result = run_race(trainer, pl_module, {"learning rate": trained}, self.settings)
        self.seconds = time.perf_counter() - start
        rank_zero_info(f"Learning rate {self.result.winner.rate:g}, by a race of {cost_in_words(self.result)}.")


def rate_race_of(trainer: Trainer) -> RateRace | None:
    """Return the RateRace among a trainer's callbacks."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, RateRace)), None)


def _check_alone(trainer: Trainer) -> None:
    """Check that no other race chooses the learning rate.

    Raises:
        BeftError: If one does.
    """
    selections = [callback for callback in trainer.callbacks if isinstance(callback, BiasSelectionCallback)]  # type: ignore[attr-defined]
    if any(selection.approach == RACE for selection in selections):
        raise BeftError("approach 'race' chooses the learning rate, too: leave out RateRace, or take another approach.")
