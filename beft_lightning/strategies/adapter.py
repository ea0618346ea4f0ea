"""Requirements of this package on a strategy, and how the strategies with the whole model on each process meet them."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from torch import nn

from beft_lightning.adapter import complete_averages, keep_trained, prepare
from beft_lightning.bias.architecture import Architecture
from beft_lightning.bias.found import restore_found
from beft_lightning.bias.precision import keep_fp32
from beft_lightning.checkpoint import FOUND_KEY, TRAINED_KEY, held_names, local_file
from beft_lightning.errors import CheckpointError
from beft_lightning.fingerprint import fingerprint
from beft_lightning.models import QUANTIZED
from beft_lightning.parameters import numel

Action = Callable[[], object]
#: The moments at which actions run, in their order.
_Moment = Literal["restore", "values", "sharding", "optimizers"]


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
    #: Whether checkpoints hold what was trained and nothing else of the model, also those saved after the run.
    saves_trained_values: bool = False
    #: Where the bias terms are, for the structure of a checkpoint; None where the built-in table knows the model.
    architecture: Architecture | None = None
    #: Raises an error if the module has values that must not be saved; for one fit, given once it is set up.
    check_values: Callable[[LightningModule], object] | None = None
    _fingerprint: Mapping[str, list[Any]] | None = None
    _actions: Mapping[_Moment, Sequence[Action]] = {}

    def before_restore(self, action: Action) -> None:
        """Run ``action`` when ``configure_model`` has returned, before a checkpoint is restored or the model is set up.

        Where the terms are that a checkpoint's fit has found is known then.
        """
        self._before("restore", action)

    def before_values(self, action: Action) -> None:
        """Run ``action`` when the module has the structure of a checkpoint, before its values are loaded."""
        self._before("values", action)

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
        if trainer.state.fn == "fit":
            self.check_values = None  # Of the last fit, after which values can still be saved.
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
        """Drop all actions, and give the instance its original class back, unless checkpoints are saved our way."""
        self._actions = {}
        if self.original is not None and not self.saves_trained_values:
            self.__class__ = self.original  # type: ignore[assignment]

    def on_exception(self, exception: BaseException) -> None:
        """Release the strategy after a failed run: callbacks have no later hook then."""
        super().on_exception(exception)
        self.release()

    @property
    def quantized(self) -> tuple[str, ...]:
        """The precisions of bitsandbytes that frozen weights may have: all where they are whole."""
        return QUANTIZED

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
            parameter.grad = part.view_as(parameter).to(parameter.dtype, copy=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, and measure how long it takes.

        Here and not in a callback's hook, which Lightning does not call for checkpoints without an optimizer's state,
        and which comes before those of some other callbacks.
        """
        start = time.perf_counter()
        assert self.lightning_module is not None
        if self.check_values is not None:
            self.check_values(self.lightning_module)
        if self.saves_trained_values:
            keep_trained(self.lightning_module, checkpoint, self.fingerprint())
        self._write_checkpoint(checkpoint, filepath, storage_options)
        self.checkpoint_seconds += time.perf_counter() - start

    def _write_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any) -> None:
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def fingerprint(self) -> Mapping[str, list[Any]]:
        """Return the module's fingerprint, made once for each run: frozen weights do not change."""
        if self._fingerprint is None:
            assert self.lightning_module is not None
            self._fingerprint = fingerprint(self.lightning_module)
        return self._fingerprint

    def forget_fingerprint(self) -> None:
        """Make the fingerprint anew in the next run, while the model is whole."""
        self._fingerprint = None
        self.before_sharding(self.fingerprint)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of any strategy. Lightning reads what is no local folder, since it may be remote."""
        checkpoint = self._read_checkpoint(local_file(checkpoint_path), weights_only)
        assert self.lightning_module is not None
        restore_found(self.lightning_module, checkpoint.get(FOUND_KEY, {}))
        self._run_actions("restore")
        return checkpoint

    def _read_checkpoint(self, path: Any, weights_only: bool | None) -> dict[str, Any]:
        return super().load_checkpoint(path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give the module the biases that a checkpoint names, then load the values.

        Args:
            checkpoint: The content of a file.
            strict: Whether a full checkpoint has to have every tensor of the module. Trained values are always checked.

        Raises:
            CheckpointError: If trained values belong to another model.
        """
        assert self.lightning_module is not None
        partial = TRAINED_KEY in checkpoint
        state = prepare(self.lightning_module, checkpoint, self.fingerprint, self.architecture)
        if partial and self.precision_plugin.precision.endswith("mixed"):
            self.keep_precise(held_names(checkpoint))
        self._run_actions("values")
        self._load_values({**checkpoint, "state_dict": state}, strict and not partial)
        if partial:
            assert isinstance(checkpoint, dict)
            complete_averages(self.lightning_module, checkpoint)

    def _load_values(self, checkpoint: Mapping[str, Any], strict: bool) -> None:
        super().load_model_state_dict(checkpoint, strict=strict)

    def keep_precise(self, names: Collection[str]) -> None:
        """Make the parameters of these names fp32, as in the fit, before values are loaded, which would be rounded."""
        assert self.lightning_module is not None
        keep_fp32(self.lightning_module, names)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue with the optimizer's state.

        Raises:
            CheckpointError: If the checkpoint's is in DeepSpeed's own format, or of other parameters.
        """
        if self.optimizers and not checkpoint["optimizer_states"]:
            raise CheckpointError(
                "this checkpoint was written under DeepSpeed, which alone can read its optimizer's state: resume with "
                "the same strategy and number of processes. Its trained values can be evaluated under any strategy."
            )
        saved, here = _sizes(checkpoint["optimizer_states"]), _sizes([vars(o) for o in self.optimizers])
        if saved != here and TRAINED_KEY in checkpoint:
            raise CheckpointError(
                f"the checkpoint has the optimizer's state of {sum(saved)} parameters, and this fit gives its "
                f"optimizers {sum(here)}: resume with the same terms, for which the same biases are added, or let "
                "configure_optimizers take only the parameters that require a gradient."
            )
        if saved != here:
            raise CheckpointError(
                f"this full checkpoint has the optimizer's state of {sum(saved)} parameters, and this fit "
                f"trains {sum(here)}: it was saved by a fit without BiasSelectionCallback, which cannot be "
                "resumed with it. Start a new fit from its values: beft_lightning.load_adapter(module, path) before "
                "trainer.fit(module)."
            )
        self._load_optimizer_states(checkpoint)

    def _load_optimizer_states(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)


def _sizes(states: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the number of parameters in each group of each optimizer."""
    return [len(group["params"]) for state in states for group in state.get("param_groups", ())]


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
