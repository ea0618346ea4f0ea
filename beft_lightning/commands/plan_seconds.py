"""Seconds of a fit, from a few timed steps of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.callbacks.rate_race import rate_race_of
from beft_lightning.commands.plan_choice import planned_choice
from beft_lightning.errors import BeftError
from beft_lightning.scoring.isolation import eval_mode
from beft_lightning.scoring.training_loss import half_autocast
from beft_lightning.tasks import LanguageTaskModule
from beft_lightning.words import batches

#: Batches that are timed of each kind, after one that warms up.
TIMED = 8


@dataclass(frozen=True)
class Seconds:
    """Estimated times of a fit, in seconds, without loading the model and writing files.

    Args:
        step: Forward pass, backward pass and optimizer step of a training batch.
        held_out: Forward pass of a training batch in evaluation mode.
        epoch: Training batches of an epoch, and one validation.
        choice: The scoring or the races before the fit, at most; 0 if there are none.
        fit: All epochs, and the choice.
        epoch_batches: Training batches of an epoch.
        fit_batches: Training batches of the fit.
        choice_batches: Batches of the choice, at most; held-out ones count half.
    """

    step: float
    held_out: float
    epoch: float
    choice: float
    fit: float
    epoch_batches: int
    fit_batches: int
    choice_batches: float

    def to_dict(self) -> dict[str, float]:
        """Return the times as plain types, ready for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Return labels and values for people."""
        share = f", {self.choice_batches / self.fit_batches:.0%} of the fit's {batches(self.fit_batches)}"
        return [
            ("a training step", duration(self.step)),
            ("scoring or race, at most", f"{duration(self.choice)}{share}"),
            ("an epoch with validation", f"{duration(self.epoch)}, {batches(self.epoch_batches)}"),
            ("the fit", duration(self.fit)),
        ]


def duration(seconds: float) -> str:
    """Return a time as people read it.

    >>> duration(0.3456), duration(95.1), duration(1490), duration(100_000)
    ('0.346 s', '95.1 s', '25 min', '27 h 47 min')
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def time_fit(
    trainer: Trainer, module: LanguageTaskModule, data: LightningDataModule, selection: BiasSelectionCallback | None
) -> Seconds:
    """Take a few training steps and evaluations on batches of the run, and compute the times of a fit.

    Args:
        trainer: The trainer of the fit, which does not run; its precision, clipping and limits hold.
        module: The module; its model is loaded. It cannot be fitted afterwards.
        data: The data; training and validation split are read.
        selection: The callback that decides where ``module.tune`` is ``auto``.

    Raises:
        BeftError: If the fit has several processes, or no set length.
    """
    if trainer.world_size > 1:
        raise BeftError("plan takes the time of one process: leave out --seconds, or set trainer.devices to 1.")
    data.prepare_data()
    data.setup("fit")
    module.configure_model()
    if module.method is None:
        (selection or BiasSelectionCallback()).freeze_largest(module)
    module.to(trainer.strategy.root_device)
    training = _limited(list(data.train_dataloader()), trainer.limit_train_batches)
    validation = [b for loader in data.val_dataloader() for b in _limited(list(loader), trainer.limit_val_batches)]
    fit_batches = _fit_batches(trainer, len(training))
    choice = planned_choice(module, selection, rate_race_of(trainer), fit_batches, trainer.accumulate_grad_batches)
    clock = _Clock(trainer, module)
    step, held_out = clock.mean(clock.train, training), clock.mean(clock.hold_out, training)
    validating = clock.mean(clock.validate, validation) * len(validation)
    choosing = choice.training * step + choice.held_out * held_out
    return Seconds(
        step=step,
        held_out=held_out,
        epoch=len(training) * step + validating,
        choice=choosing,
        fit=choosing + fit_batches * step + fit_batches / len(training) * validating,
        epoch_batches=len(training),
        fit_batches=fit_batches,
        choice_batches=choice.batches,
    )


class _Clock:
    """Times passes of a module, without Lightning's loop around them.

    Args:
        trainer: The trainer, for precision and clipping.
        module: The module with its model.
    """

    def __init__(self, trainer: Trainer, module: LanguageTaskModule) -> None:
        assert module.model is not None
        assert module.objective is not None
        self.trainer, self.module = trainer, module
        self.model, self.objective = module.model, module.objective
        self.optimizer = module.make_optimizer()
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def train(self, batch: Any) -> None:
        """Take a training step; the learning rate does not matter."""
        with self.trainer.precision_plugin.train_step_context():
            loss = self.objective.loss(self.model, batch)
        loss.backward()
        if limit := self.trainer.gradient_clip_val:
            nn.utils.clip_grad_norm_(self.trained, float(limit))
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def hold_out(self, batch: Any) -> None:
        """Compute the loss of a training batch as a race does."""
        with eval_mode(self.model), half_autocast(self.module, self.trainer.strategy.root_device):
            self.objective.loss(self.model, batch)

    @torch.no_grad()
    def validate(self, batch: Any) -> None:
        """Evaluate a batch."""
        with eval_mode(self.model), self.trainer.precision_plugin.val_step_context():
            self.objective.evaluate(self.model, batch)

    def mean(self, run: Callable[[Any], None], batches: Sequence[Any]) -> float:
        """Return the mean seconds of a batch, from some of all sizes; 0 if there are none.

        Args:
            run: What is timed.
            batches: All batches; those in the middle of equal parts of their order by size are taken.
        """
        ordered = sorted(batches, key=_size)
        count = min(TIMED, len(ordered))
        chosen = [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]
        seconds = []
        for batch in (*chosen[:1], *chosen):
            moved = self.trainer.strategy.batch_to_device(batch, self.trainer.strategy.root_device)
            start = time.perf_counter()
            run(moved)
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            seconds.append(time.perf_counter() - start)
        return fmean(seconds[1:]) if count else 0.0


def _size(batch: Any) -> int:
    """Return the number of values of a batch's tensors, padding included."""
    sizes: list[int] = []
    apply_to_collection(batch, Tensor, lambda tensor: sizes.append(tensor.numel()))
    return sum(sizes)


def _limited(batches: list[Any], limit: float) -> list[Any]:
    """Return the batches that a trainer's limit leaves: a number of them, or a share."""
    return batches[: limit if isinstance(limit, int) else int(limit * len(batches))]


def _fit_batches(trainer: Trainer, epoch: int) -> int:
    """Return the training batches of a fit, given those of an epoch.

    Raises:
        BeftError: If there are none, or the fit has no set length.
    """
    lengths = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        lengths.append(trainer.max_epochs * epoch)
    if trainer.max_steps >= 0:
        lengths.append(trainer.max_steps * trainer.accumulate_grad_batches)
    if not lengths or not min(lengths):
        raise BeftError("the fit has no batches, or no set length: give trainer.max_epochs or trainer.max_steps.")
    return min(lengths)
