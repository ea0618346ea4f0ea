"""The scoring pass: a few batches of all-bias fine-tuning (or gradients only) that leave no trace.

Everything runs in fp32 outside autocast and with the published update rule. Under bf16 autocast and the usual
epsilon, Adam turns the rounding noise of the inert key bias into steps as large as any other, and the projection
score then ranks it first.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from beft_lightning.bias import (
    BiasScores,
    BiasTerms,
    ReferenceAdam,
    TermScore,
    fisher_score,
    inert_by_gradient,
    magnitude_score,
    projection_score,
)
from beft_lightning.errors import ScoringError

Approach = Literal["projection", "magnitude", "fisher"]
_CHANGE_SCORES = {"projection": projection_score, "magnitude": magnitude_score}
#: Scores of the candidate terms, term -> layer -> score.
_Table = dict[str, dict[int, float]]


@dataclass(frozen=True)
class ScoringPass:
    """How to score.

    Args:
        approach: Which score.
        batches: Most training batches to use.
        patience: Stop once the order of the terms has not changed for this many batches; 0 never stops early.
        learning_rate: Learning rate of the all-bias fine-tuning.
        clip_norm: Joint gradient norm to clip to; ``None`` clips nothing.
    """

    approach: Approach
    batches: int
    patience: int
    learning_rate: float
    clip_norm: float | None

    def run(
        self,
        trainer: Trainer,
        module: LightningModule,
        terms: BiasTerms,
        candidates: list[str],
        head: list[str],
        inert: tuple[str, ...] | None,
        model_type: str,
    ) -> BiasScores:
        """Score ``candidates`` on the user's own batches through the user's own ``training_step``.

        Args:
            trainer: A trainer inside ``fit``, before its strategy has wrapped the module.
            module: The module that is going to be fitted.
            terms: Every bias term of the model; all are trained, as in the published all-bias run.
            candidates: The terms to score.
            head: Names of the head's parameters, trained along.
            inert: Terms known to be inert; ``None`` to probe on the first batch.
            model_type: Recorded in the result.

        Raises:
            ScoringError: If there is no training batch, the loss is not finite, or no gradient arrives.
        """
        named = dict(module.named_parameters())
        biases = [bias for layers in terms.values() for bias in layers.values()]
        trained = list({id(p): p for p in [*biases, *(named[name] for name in head)]}.values())
        module.to(trainer.strategy.root_device)
        # Outside the isolation below: the fit reuses this loader, and must find the RNG as if it had made it itself.
        trainer.fit_loop.setup_data()
        with leave_no_trace(trainer, module, trained), torch.enable_grad():
            batches = _training_batches(trainer)
            if inert is None:
                first = next(batches)
                inert = _probe(trainer, module, terms, first)
                batches = itertools.chain([first], batches)
            scored = {term: terms[term] for term in candidates}
            # Fisher is the gradient at the checkpoint itself, without dropout.
            with _eval_mode(module) if self.approach == "fisher" else nullcontext():
                table, steps = self._score(trainer, module, scored, trained, batches)
        return BiasScores(
            approach=self.approach,
            model_type=model_type,
            steps=steps,
            terms={
                term: TermScore(
                    layers=list(layers.values()),
                    inert=term in inert,
                    parameters=sum(bias.numel() for bias in terms[term].values()),
                )
                for term, layers in table.items()
            },
        )

    def _score(
        self,
        trainer: Trainer,
        module: LightningModule,
        candidates: BiasTerms,
        trained: list[nn.Parameter],
        batches: Iterator[Any],
    ) -> tuple[_Table, int]:
        optimizer = ReferenceAdam(trained, lr=self.learning_rate)
        before = _per_layer(candidates, lambda bias: bias.detach().clone())
        fisher: dict[str, dict[int, float]] = {term: dict.fromkeys(layers, 0.0) for term, layers in candidates.items()}
        table: _Table = {}
        order: list[str] = []
        unchanged = step = 0
        for step, batch in enumerate(itertools.islice(batches, self.batches), start=1):
            loss = training_loss(trainer, module, batch, step - 1)
            if not torch.isfinite(loss):
                raise ScoringError(
                    f"the loss of scoring batch {step} is {loss.item()}: lower the scoring learning rate "
                    f"(now {self.learning_rate:g}), or look for bad values in the training data."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            _average_gradients(trainer, trained)
            if all(bias.grad is None for layers in candidates.values() for bias in layers.values()):
                raise ScoringError(
                    "no gradient reaches the candidate biases: `training_step` must return a loss that depends on "
                    "the model, not one that is detached or computed under no_grad."
                )
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, self.clip_norm)
            if self.approach == "fisher":
                for term, layers in candidates.items():
                    for index, bias in layers.items():
                        draw = 0.0 if bias.grad is None else fisher_score([bias.grad]).item()
                        fisher[term][index] += (draw - fisher[term][index]) / step
                table = fisher
            else:
                optimizer.step()
                change = _CHANGE_SCORES[self.approach]
                table = {
                    term: {index: change(before[term][index], bias).item() for index, bias in layers.items()}
                    for term, layers in candidates.items()
                }
            latest = sorted(table, key=lambda term: -sum(table[term].values()) / len(table[term]))
            unchanged = unchanged + 1 if latest == order else 0
            order = latest
            if self.patience and unchanged >= self.patience:
                break
        if not step:
            raise ScoringError("the training dataloader gave no batch to score on.")
        return table, step


def training_loss(trainer: Trainer, module: LightningModule, batch: Any, index: int) -> Tensor:
    """The loss of the user's ``training_step``, in fp32 where the weights are.

    Frozen weights in half precision need autocast to meet fp32 biases; then it is switched on for them alone.

    Raises:
        ScoringError: If the step returns no loss.
    """
    device = trainer.strategy.root_device
    batch = trainer.strategy.batch_to_device(batch, device)
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    half = next((p.dtype for p in module.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    with torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None):
        output = module.training_step(batch, index) if takes_index else module.training_step(batch)
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise ScoringError(
            f"`training_step` returned {type(output).__name__} instead of a loss tensor (or a dict with 'loss') "
            f"for scoring batch {index + 1}."
        )
    return loss


@contextmanager
def leave_no_trace(trainer: Trainer, module: LightningModule, trained: list[nn.Parameter]) -> Iterator[None]:
    """Train ``trained`` inside this context; on leaving, everything is as it was.

    Restored are weights, buffers, gradients' absence, what is trainable, torchmetrics' states, the
    random number generators (global ones and those of the dataloaders), and ``self.log``, which does nothing inside.
    """
    requires_grad = {parameter: parameter.requires_grad for parameter in module.parameters()}
    values = {parameter: parameter.detach().clone() for parameter in trained}
    buffers = {buffer: buffer.detach().clone() for buffer in module.buffers()}
    with ExitStack() as stack:
        stack.enter_context(isolate_rng())
        stack.enter_context(_restored_generators(trainer))
        stack.enter_context(_copied_metrics(module))
        stack.enter_context(_silent_logging(module))
        try:
            chosen = {id(parameter) for parameter in trained}
            for parameter in requires_grad:
                parameter.requires_grad_(id(parameter) in chosen)
            yield
        finally:
            with torch.no_grad():
                for tensor, value in itertools.chain(values.items(), buffers.items()):
                    tensor.copy_(value)
            for parameter, trainable in requires_grad.items():
                parameter.grad = None
                parameter.requires_grad_(trainable)


def _per_layer(terms: BiasTerms, function: Callable[[nn.Parameter], Tensor]) -> dict[str, dict[int, Tensor]]:
    return {term: {index: function(bias) for index, bias in layers.items()} for term, layers in terms.items()}


def _training_batches(trainer: Trainer) -> Iterator[Any]:
    """The fit's own training batches, in its order, starting over when they run out."""
    loader = CombinedLoader(trainer.train_dataloader, "max_size_cycle")
    limit = trainer.num_training_batches
    while True:
        batches = itertools.islice(iter(loader), None if limit == float("inf") else int(limit))
        empty = True
        for batch, _, _ in batches:
            empty = False
            yield batch
        if empty:
            return


def _average_gradients(trainer: Trainer, trained: list[nn.Parameter]) -> None:
    """Average the gradients over the processes, in one message, so that all ranks take the same steps."""
    if trainer.world_size == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    mean = trainer.strategy.reduce(flat, reduce_op="mean")
    for parameter, part in zip(trained, mean.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def _probe(trainer: Trainer, module: LightningModule, terms: BiasTerms, batch: Any) -> tuple[str, ...]:
    biases = {term: list(layers.values()) for term, layers in terms.items()}
    with _eval_mode(module):
        loss = training_loss(trainer, module, batch, 0)
    flat = [bias for layers in biases.values() for bias in layers]
    gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True))
    return inert_by_gradient({term: [next(gradients) for _ in layers] for term, layers in biases.items()})


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each submodule's own mode again afterwards."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training


@contextmanager
def _restored_generators(trainer: Trainer) -> Iterator[None]:
    """Put back the private random generators of the dataloaders and their samplers."""
    generators = []
    for loader in CombinedLoader(trainer.train_dataloader).flattened:
        batch_sampler = getattr(loader, "batch_sampler", None)
        for owner in (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                generators.append((generator, generator.get_state()))
    try:
        yield
    finally:
        for generator, state in generators:
            generator.set_state(state)


@contextmanager
def _copied_metrics(module: nn.Module) -> Iterator[None]:
    """Let the metrics inside ``module`` be updated as copies."""
    owners = [
        (parent, name, child)
        for parent in module.modules()
        if not isinstance(parent, Metric | MetricCollection)
        for name, child in parent.named_children()
        if isinstance(child, Metric | MetricCollection)
    ]
    for parent, name, child in owners:
        parent._modules[name] = copy.deepcopy(child)
    try:
        yield
    finally:
        for parent, name, child in owners:
            parent._modules[name] = child


@contextmanager
def _silent_logging(module: LightningModule) -> Iterator[None]:
    """Make ``self.log`` and ``self.log_dict`` do nothing: the fit's results are not set up yet."""

    def ignore(*args: Any, **kwargs: Any) -> None:
        pass

    module.__dict__.update(log=ignore, log_dict=ignore)
    try:
        yield
    finally:
        for name in ("log", "log_dict"):
            module.__dict__.pop(name)
