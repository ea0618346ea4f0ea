"""The scoring pass leaves no trace, and its numbers are those of the formulas."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from beft_lightning.bias import Architecture
from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.errors import ScoringError
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


class Spy(BiasSelectionCallback):
    """Looks at the module right before and right after the selection."""

    before: dict[str, Any]
    after: dict[str, Any]

    def _select(self, trainer: Trainer, pl_module: Any, *args: Any) -> list[str]:
        self.before = snapshot(trainer, pl_module)
        selected = super()._select(trainer, pl_module, *args)
        self.after = snapshot(trainer, pl_module)
        return selected


def snapshot(trainer: Trainer, module: ForeignModule) -> dict[str, Any]:
    loader: Any = trainer.fit_loop._data_source.instance
    return {
        "parameters": {name: p.detach().clone() for name, p in module.named_parameters()},
        "buffers": {name: b.clone() for name, b in module.named_buffers()},
        "requires_grad": {name: p.requires_grad for name, p in module.named_parameters()},
        "gradients": [name for name, p in module.named_parameters() if p.grad is not None],
        "modes": {name: child.training for name, child in module.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # type: ignore[index]
        "python": random.getstate(),
        "loader": loader.generator.get_state() if loader.generator else torch.zeros(0),
        "metric": copy.deepcopy(dict(module.accuracy.metric_state)),
        "updates": module.accuracy.update_count,
        "log": "log" in module.__dict__,
        "global_step": trainer.global_step,
    }


@pytest.mark.parametrize("approach", ["projection", "magnitude", "fisher", "sample_fisher", "gradient"])
@pytest.mark.parametrize("own_generator", [True, False])
@pytest.mark.parametrize(("model_type", "head"), [("bert", "classifier"), ("gpt2", "score")])
def test_scoring_leaves_no_trace(
    model_type: str, head: str, approach: Any, own_generator: bool, make_trainer: MakeTrainer
) -> None:
    torch.manual_seed(5)
    module = ForeignModule(model_type)
    module.net.get_submodule(head).eval()  # a mode of its own must survive too
    module.accuracy.update(torch.tensor([1, 0]), torch.tensor([1, 1]))
    loader = token_batches(generator=torch.Generator().manual_seed(1) if own_generator else None)
    spy = Spy(approach=approach, terms=["query", "value"], batches=11)
    make_trainer(callbacks=[spy], max_epochs=0).fit(module, loader)
    assert spy.scores is not None
    assert spy.before["updates"] == 1
    torch.testing.assert_close(spy.after, spy.before, rtol=0, atol=0)


def test_scoring_stops_once_the_order_is_stable(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback(batches=30, patience=3)
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    assert callback.scores is not None
    assert 4 <= callback.scores.steps < 30


def test_a_short_loader_is_gone_through_again(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback(batches=7, patience=0)
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches(examples=8))
    assert callback.scores is not None
    assert callback.scores.steps == 7


def test_unknown_inertness_is_probed(make_trainer: MakeTrainer) -> None:
    """With a mapping of one's own that says nothing about inert terms, BERT's key bias is found out."""
    paths = {term: f"attention.self.{term}" for term in ("query", "key", "value")}
    callback = BiasSelectionCallback(architecture=Architecture(layer="encoder.layer.{}", terms=paths))
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    assert callback.scores is not None
    assert [term for term, entry in callback.scores.terms.items() if entry.inert] == ["key"]


class Demanding(ForeignModule):
    """Uses what Lightning offers a training step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.same_accuracy = self.accuracy
        self.skipped = 0

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {"ids": batch[0], "labels": batch[1]}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1 and not self.skipped:
            self.skipped += 1
            return None
        optimizer: Any = self.optimizers()
        self.log("lr", optimizer.param_groups[0]["lr"])
        self.inner()
        self.running = self.running + 1  # a new tensor in the buffer's place
        return super().training_step([batch["ids"], batch["labels"]], batch_idx)


class Skipping(ForeignModule):
    """Skips every second batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 2 else super().training_step(batch, batch_idx)


def test_batches_are_counted_on_behind_a_skipped_one(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback("gradient", ["query", "value"], batches=6, patience=0)
    make_trainer(callbacks=[callback], max_epochs=0).fit(Skipping(), token_batches(12))
    assert callback.scores is not None
    assert callback.scores.steps == 3


class Inner(LightningModule):
    """A LightningModule inside another that logs for itself."""

    def forward(self) -> None:
        self.log("inner", 1.0)


def test_a_demanding_training_step_is_scored_and_leaves_no_trace(make_trainer: MakeTrainer) -> None:
    module = Demanding()
    spy = Spy(batches=5, patience=0)
    make_trainer(callbacks=[spy], max_epochs=0).fit(module, token_batches())
    assert module.skipped == 0
    assert spy.scores is not None
    assert spy.scores.steps == 4
    torch.testing.assert_close(spy.after, spy.before, rtol=0, atol=0)


class Averaging(ForeignModule):
    """Keeps a frozen running average of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        with torch.no_grad():
            self.average.lerp_(self.extra.weight, 0.1)
        return super().training_step(batch, batch_idx)


def test_changes_that_scoring_cannot_take_back_are_an_error(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ScoringError, match="changes 1 frozen parameters in place"):
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(Averaging(), token_batches())


def test_no_training_batches_are_an_error(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ScoringError, match="limit_train_batches is 0"):
        make_trainer(callbacks=[BiasSelectionCallback()], limit_train_batches=0).fit(ForeignModule(), token_batches())


def test_a_lone_inert_term_is_found_out(make_trainer: MakeTrainer) -> None:
    mine = Architecture(layer="encoder.layer.{}", terms={"key": "attention.self.key"})
    with pytest.raises(ScoringError, match="every score is zero|inert and therefore left out: key"):
        make_trainer(callbacks=[BiasSelectionCallback(terms=["key"], architecture=mine)]).fit(
            ForeignModule(), token_batches()
        )


def test_without_a_batch_there_is_nothing_to_probe(make_trainer: MakeTrainer) -> None:
    """Where nothing says which terms are inert."""
    mapping = Architecture(layer="encoder.layer.{}", terms={"value": "attention.self.value"})
    callback = BiasSelectionCallback(terms=["value"], architecture=mapping)
    with pytest.raises(ScoringError, match="there is no training batch to probe"):
        make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), DataLoader(NoBatches(), batch_size=None))


class NoBatches(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def test_patience_does_not_end_the_scoring_of_single_layers(make_trainer: MakeTrainer) -> None:
    """The order of the layers may change while that of the terms does not."""
    callback = BiasSelectionCallback(terms=["value"], per_layer=True, batches=3, patience=1)
    make_trainer(callbacks=[callback], max_epochs=0).fit(ForeignModule(), token_batches())
    assert callback.scores is not None
    assert callback.scores.steps == 3
