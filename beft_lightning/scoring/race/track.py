"""The track of a race: where an entrant is trained and evaluated."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR

from beft_lightning.errors import ScoringError
from beft_lightning.learning_rate import hold_at_peak, rate_of, set_rate
from beft_lightning.scoring.isolation import eval_mode
from beft_lightning.scoring.race.entrant import Entrant, Lap
from beft_lightning.scoring.race.model_state import ModelState
from beft_lightning.scoring.race.split import BatchSplit, copy_of
from beft_lightning.scoring.training_loss import training_loss
from beft_lightning.strategies.adapter import AdapterStrategy
from beft_lightning.strategies.internals.lightning import configured_optimizers


@dataclass(frozen=True)
class Track:
    """Trains one entrant at a time through the module's own ``training_step``, in fp32, without its schedulers.

    Args:
        trainer: The trainer; its clipping and accumulation of gradients hold.
        strategy: Its strategy, which averages over the processes.
        module: The module.
        checkpoint: The state at the checkpoint, with the values of what any entrant trains.
        split: The batches.
    """

    trainer: Trainer
    strategy: AdapterStrategy
    module: LightningModule
    checkpoint: ModelState
    split: BatchSplit

    def advance(self, entrant: Entrant, batches: int) -> int:
        """Train an entrant until it has had so many batches, and evaluate it.

        Args:
            entrant: The entrant; it gets a lap.
            batches: Training batches in all: a multiple of those that an optimizer step accumulates.

        Returns:
            The number of batches that it was trained on now.
        """
        before, together = entrant.batches, self.trainer.accumulate_grad_batches
        entrant.enter(self.checkpoint)
        optimizer = self._optimizer(entrant)
        steps = (range(first, first + together) for first in range(before, batches, together))
        finite = all(self._step(entrant, optimizer, numbers) for numbers in steps)
        entrant.leave(self.module)  # Without what the evaluation counts.
        entrant.laps.append(Lap(batches, self.evaluate() if finite else [math.inf] * len(self.split.held_out)))
        return batches - before

    def evaluate(self) -> list[float]:
        """Return the model's loss on each held-out batch, averaged over the processes; infinite if not finite."""
        losses = []
        with eval_mode(self.module), torch.no_grad():
            for i, batch in enumerate(self.split.held_out):
                loss = training_loss(self.strategy, self.module, copy_of(batch), i)
                # All processes stop, or none does: the others would wait.
                if not self.strategy.reduce_boolean_decision(loss is not None, all=True):
                    raise ScoringError("`training_step` skips batches that a race holds out: use another approach.")
                assert loss is not None
                losses.append(loss.detach().double())
        mean: Tensor = self.strategy.reduce(torch.stack(losses), reduce_op="mean")
        return [value if math.isfinite(value) else math.inf for value in mean.tolist()]

    def _optimizer(self, entrant: Entrant) -> Optimizer:
        """Return the entrant's optimizer, made as the fit makes its own."""
        if entrant.optimizer is None:
            (entrant.optimizer, *others), configs = configured_optimizers(self.module)
            if others:
                raise ScoringError("a race needs a module with one optimizer: use another approach.")
            schedulers = [config.scheduler for config in configs]
            if entrant.rate is None:
                entrant.rate = rate_of(entrant.optimizer, schedulers)
            set_rate(entrant.optimizer, entrant.rate, schedulers)
            hold_at_peak(entrant.optimizer, schedulers)
        # For a training step that asks for them, to log the learning rate.
        self.strategy.optimizers = [entrant.optimizer]
        self.strategy.lr_scheduler_configs = [LRSchedulerConfig(ConstantLR(entrant.optimizer, factor=1.0))]
        return entrant.optimizer

    def _step(self, entrant: Entrant, optimizer: Optimizer, numbers: range) -> bool:
        """Take an optimizer step over some batches; return False if the loss is not finite in any process."""
        optimizer.zero_grad(set_to_none=True)
        skipped = 0
        for number in numbers:
            # The same dropout for every entrant, another one in each process.
            torch.manual_seed(self.split.seed + number * self.trainer.world_size + self.trainer.global_rank)
            loss = training_loss(self.strategy, self.module, self.split.training_batch(number), number)
            if not self.strategy.reduce_boolean_decision(loss is not None, all=True):
                skipped += 1  # Lightning skips such batches, too.
                continue
            assert loss is not None
            if not self.strategy.reduce_boolean_decision(bool(torch.isfinite(loss)), all=True):
                return False
            if loss.requires_grad:
                (loss / len(numbers)).backward()
        if skipped == len(numbers):
            return True
        if all(parameter.grad is None for parameter in entrant.parameters):
            raise ScoringError(
                f"no gradient reaches {entrant.term}: `training_step` must return a loss that depends on the model, "
                "not one that is detached or computed under no_grad."
            )
        self.strategy.average_gradients(entrant.parameters)
        self._clip(entrant.parameters)
        optimizer.step()
        return True

    def _clip(self, parameters: list[nn.Parameter]) -> None:
        limit: Any = self.trainer.gradient_clip_val
        if limit and self.trainer.gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(parameters, limit)
        elif limit:
            nn.utils.clip_grad_norm_(parameters, limit)
