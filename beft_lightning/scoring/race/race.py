"""The run of a race inside a fit, before its optimizer is built."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from beft_lightning.errors import BeftError, ScoringError
from beft_lightning.progress import bar
from beft_lightning.scoring.batches import training_data
from beft_lightning.scoring.isolation import leave_no_trace
from beft_lightning.scoring.race.entrant import Entrant
from beft_lightning.scoring.race.gap import gap
from beft_lightning.scoring.race.model_state import ModelState
from beft_lightning.scoring.race.result import Placed, RaceCost, RaceResult
from beft_lightning.scoring.race.rounds import Round, announcement, rounds, survivors
from beft_lightning.scoring.race.settings import RaceSettings
from beft_lightning.scoring.race.split import collect_batches, split_batches
from beft_lightning.scoring.race.track import Track
from beft_lightning.strategies.adaptation import adapt
from beft_lightning.strategies.sharded import ShardedAdapterStrategy


def run_race(
    trainer: Trainer,
    module: LightningModule,
    candidates: Mapping[str, Sequence[nn.Parameter]],
    settings: RaceSettings,
) -> RaceResult:
    """Train each candidate alone for a few batches at each learning rate, and compare their held-out losses.

    The entrants see the same batches in the same order with the same random numbers, through the module's own
    ``training_step`` and optimizer, each with a state of its own: the values of what it trains, and the module's
    buffers and counters. Afterwards everything is as it was, see
    :func:`~beft_lightning.scoring.isolation.leave_no_trace`.

    Args:
        trainer: A trainer inside ``fit``, at the point where its strategy lets the term be selected.
        module: The module that is going to be fitted.
        candidates: Name -> what is trained, the head included.
        settings: The settings of the race.

    Raises:
        BeftError: If the strategy has parts of the model in other processes, or the optimizer no learning rate.
        ScoringError: If there are too few batches for a race or in the allowance, no candidate can be trained, or all
            that are left diverge.
    """
    strategy = adapt(trainer.strategy)
    if isinstance(strategy, ShardedAdapterStrategy):
        raise BeftError(
            f"a race trains with the fit's own optimizer on a whole model, and {type(strategy).__name__} shards both: "
            "use DDPStrategy or a single device, or another approach."
        )
    rates: Sequence[float | None] = settings.rates or [None]
    entrants = [Entrant(name, rate, list(trained)) for name, trained in candidates.items() for rate in rates]
    everyone = list(dict.fromkeys(parameter for entrant in entrants for parameter in entrant.parameters))
    start = time.perf_counter()
    with (
        strategy.scoring(everyone),
        leave_no_trace(trainer, module, everyone) as snapshot,
        training_data(trainer, snapshot) as data,
        torch.enable_grad(),
    ):
        fit_batches = fit_batches_of(trainer)
        settings = settings.in_steps(trainer.accumulate_grad_batches)
        planned = rounds(len(entrants), settings, fit_batches)
        rank_zero_info(announcement(planned, fit_batches))
        batches = collect_batches(strategy, data.epoch(0), settings.held_out + planned[-1].batches)
        split = split_batches(batches, settings.held_out, settings.seed)
        track = Track(trainer, strategy, module, ModelState(module, everyone), split)
        initial = track.evaluate()
        if not all(map(math.isfinite, initial)):
            raise ScoringError("the loss of the checkpoint is not finite on the held-out training batches.")
        with bar("racing", sum(each.entrants for each in planned), trainer) as advance:
            trained = _hold(track, entrants, planned, advance)
        evaluations = 1 + sum(len(entrant.laps) for entrant in entrants)
    return RaceResult(
        entrants=[Placed(entrant.term, entrant.rate or 0.0, entrant.laps) for entrant in entrants],
        initial=initial,
        cost=RaceCost(
            training_batches=trained,
            held_out_batches=evaluations * len(split.held_out),
            seconds=time.perf_counter() - start,
            fit_batches=int(fit_batches) if math.isfinite(fit_batches) else None,
        ),
    )


def fit_batches_of(trainer: Trainer) -> float:
    """Return the training batches of a fit; infinite if it has no set length, or there is none.

    Args:
        trainer: A trainer inside ``fit``, whose training data is set up.
    """
    # No fit follows the command that only scores: it has no epochs, which Lightning counts as one here.
    steps = float(trainer.estimated_stepping_batches) if trainer.max_epochs != 0 else math.inf
    # For a stream without a length, Lightning gives max_steps, which is -1 where there is no limit.
    return steps * trainer.accumulate_grad_batches if steps >= 0 else math.inf


def _hold(track: Track, entrants: Sequence[Entrant], planned: Sequence[Round], advance: Callable[[], None]) -> int:
    """Hold the rounds; return the number of training batches."""
    alive, trained, before = list(entrants), 0, 0
    for each in planned:
        for entrant in alive:
            trained += track.advance(entrant, each.batches)
            advance()
        alive.sort(key=lambda entrant: entrant.laps[-1].loss)
        going_on = [entrant for entrant in alive[: survivors(len(alive))] if not entrant.has_diverged]
        if not going_on:  # One that was left behind earlier must not win.
            left = f"that went on after {before} batches has diverged by {each.batches}" if before else "has diverged"
            raise ScoringError(f"every candidate of the race {left}: give lower race.rates.")
        for entrant in entrants:
            if entrant not in going_on:
                entrant.drop_out()
        alive, before = going_on, each.batches
        if len(alive) < 2 or (len(alive) == 2 and _is_decided(*alive)):
            break
    return trained


def _is_decided(best: Entrant, other: Entrant) -> bool:
    """Return whether two entrants leave no choice of a term open: they are of one term, or told apart."""
    return best.term == other.term or not gap(other.laps[-1].losses, best.laps[-1].losses).is_tie
