"""Requirements of this package on a strategy, and how the strategies with the whole model on each process meet them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from torch import nn

from beft_lightning.checkpoint import local_file
from beft_lightning.errors import CheckpointError
from beft_lightning.parameters import numel

Action = Callable[[], object]
#: The moments at which actions run, in their order.
_Moment = Literal["restore", "sharding", "optimizers"]


class AdapterStrategy(Strategy):
    """A strategy that trains an adapter; as it stands, for strategies with the whole model on each process.

    Lightning has no hook between ``configure_model`` and the strategy's own work on the model, so the strategy holds
    the actions that belong there. Each runs once; those that have not run are dropped at the end of a run.
    """

    #: Lightning's or the user's class, of which the instance has a subclass; ``None`` if it was made as this class.
    original: ClassVar[type[Strategy] | None] = None
    #: Number of values of the model, counted before anything is sharded.
    total_parameters: int = 0
    #: Seconds that this process has spent in writing checkpoints.
    checkpoint_seconds: float = 0.0
    _actions: Mapping[_Moment, Sequence[Action]] = {}

    def before_restore(self, action: Action) -> None:
        """Run ``action`` when ``configure_model`` has returned, before a checkpoint is read or the model is set up."""
        self._before("restore", action)

    def before_sharding(self, action: Action) -> None:
        """Run ``action`` at the entrance of :meth:`setup`: the checkpoint is restored, and the model still whole."""
        self._before("sharding", action)

    def before_optimizers(self, action: Action) -> None:
        """Run ``action`` where a term can be selected.

        This is before the optimizer takes what is trainable: in :meth:`setup` with the model whole, or in
        :meth:`setup_optimizers` with the model sharded (both kinds of FSDP).
        """
        self._before("optimizers", action)

    def _before(self, moment: _Moment, action: Action) -> None:
        self._actions = {**self._actions, moment: [*self._actions.get(moment, ()), action]}

    def _run_actions(self, moment: _Moment) -> None:
        actions = self._actions
        self._actions = {other: waiting for other, waiting in actions.items() if other != moment}
        for action in actions.get(moment, ()):
            action()

    def setup(self, trainer: Trainer) -> None:
        """Run the actions, count the parameters while they are whole, then set up the model."""
        assert self.lightning_module is not None
        self._run_actions("restore")
        self._run_actions("sharding")
        self.total_parameters = sum(map(numel, self.lightning_module.parameters()))
        self.prepare_model()
        super().setup(trainer)

    def prepare_model(self) -> None:
        """Make the model ready for Lightning's setup; here, select the term: only what is trained is wrapped."""
        self._run_actions("optimizers")

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Select the term, unless it has been, then make the optimizers."""
        self._run_actions("optimizers")
        super().setup_optimizers(trainer)

    def release(self) -> None:
        """Drop all actions, and give the instance its original class back."""
        self._actions = {}
        if self.original is not None:
            self.__class__ = self.original  # type: ignore[assignment]

    def on_exception(self, exception: BaseException) -> None:
        """Release the strategy after a failed run: callbacks have no later hook then."""
        super().on_exception(exception)
        self.release()

    @property
    def quantized(self) -> tuple[str, ...]:
        """The precisions of bitsandbytes that frozen weights may have: all where they are whole."""
        return ("int8", "nf4")

    @property
    def recomputes(self) -> bool:
        """Whether layers can be computed again in the backward pass."""
        return True

    def use_all_processes(self) -> None:
        """Prepare for a module that leaves all sharding to this package."""

    @contextmanager
    def scoring(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Have the model ready for training steps.

        Args:
            trained: The parameters that the steps change, whose gradients :meth:`average_gradients` averages.
        """
        assert self.lightning_module is not None
        self.lightning_module.to(self.root_device)
        yield

    def scoring_step(self, *arguments: Any) -> Any:
        """Run the module's own ``training_step``."""
        assert self.lightning_module is not None
        return self.lightning_module.training_step(*arguments)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients over the processes, in one message, so that all ranks take the same steps."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        mean = self.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="mean")
        for parameter, part in zip(parameters, mean.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, and measure how long it takes."""
        start = time.perf_counter()
        self._write_checkpoint(checkpoint, filepath, storage_options)
        self.checkpoint_seconds += time.perf_counter() - start

    def _write_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any) -> None:
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of any strategy. Lightning reads what is no local folder, since it may be remote."""
        self._run_actions("restore")
        return self._read_checkpoint(local_file(checkpoint_path), weights_only)

    def _read_checkpoint(self, path: Any, weights_only: bool | None) -> dict[str, Any]:
        return super().load_checkpoint(path, weights_only)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue with the optimizer's state.

        Raises:
            CheckpointError: If the checkpoint's is in DeepSpeed's own format.
        """
        if self.optimizers and not checkpoint["optimizer_states"]:
            raise CheckpointError(
                "this checkpoint was written under DeepSpeed, which alone can read its optimizer's state: resume with "
                "the same strategy and number of processes. Its trained values can be evaluated under any strategy."
            )
        self._load_optimizer_states(checkpoint)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)


@cache
def adapted_class(ours: type, original: type) -> Any:
    """Return a subclass of ``original``, under its name, with the methods of ``ours``."""
    content: dict[str, Any] = {"__module__": original.__module__, "__reduce__": _reduce, "original": original}
    return type(original.__name__, (ours, original), content)


def _reduce(strategy: AdapterStrategy) -> tuple[Any, ...]:
    """Pickle a strategy whose class cannot be imported by its name."""
    ours, original = type(strategy).__bases__
    return _new, (ours, original), strategy.__getstate__()


def _new(ours: type, original: type) -> AdapterStrategy:
    cls = adapted_class(ours, original)
    strategy: AdapterStrategy = cls.__new__(cls)
    return strategy
