"""The scoring pass leaves no trace, and its numbers are those of the formulas."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from beft_lightning.bias import Architecture, find_bias_terms, split_fused_biases
from beft_lightning.bias.heads import head_parameters
from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.errors import ScoringError
from beft_lightning.scoring.functional import fisher_score, projection_score
from beft_lightning.scoring.reference_adam import ReferenceAdam
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


@pytest.mark.parametrize("approach", ["projection", "magnitude", "fisher", "sample_fisher"])
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


class Batches(torch.utils.data.Dataset[Any]):
    """Ready-made batches, always in the same order."""

    def __init__(self, count: int) -> None:
        torch.manual_seed(9)
        self.batches = [batch for _, batch in zip(range(count), token_batches(batch_size=8), strict=False)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]

    def loader(self) -> DataLoader[Any]:
        return DataLoader(self, batch_size=None)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "bloom"])
def test_the_scores_are_those_of_an_all_bias_fine_tuning(model_type: str, make_trainer: MakeTrainer) -> None:
    """Written out by hand: four steps of the published rule on all biases and the head, dropout off."""
    off = {
        "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        "gpt2": ("embd_pdrop", "resid_pdrop", "attn_pdrop"),
        "bloom": ("hidden_dropout", "attention_dropout"),
    }
    batches = Batches(4)
    module = ForeignModule(model_type, **dict.fromkeys(off[model_type], 0.0))
    by_hand = copy.deepcopy(module)
    split_fused_biases(by_hand)

    callback = BiasSelectionCallback(batches=4, patience=0, learning_rate=1e-2)
    make_trainer(callbacks=[callback], max_epochs=0).fit(module, batches.loader())

    terms = find_bias_terms(by_hand)
    names = dict(by_hand.named_parameters())
    trained = [bias for layers in terms.values() for bias in layers.values()]
    trained += [names[name] for name in head_parameters(by_hand)]
    before = {term: [bias.detach().clone() for bias in layers.values()] for term, layers in terms.items()}
    optimizer = ReferenceAdam(trained, lr=1e-2)
    for ids, labels in batches.batches:
        for parameter in by_hand.parameters():
            parameter.grad = None
        nn.functional.cross_entropy(by_hand.extra(by_hand.net(input_ids=ids).logits), labels).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    assert callback.scores is not None
    for term in ("query", "value"):
        expected = [projection_score(b, a).item() for b, a in zip(before[term], terms[term].values(), strict=True)]
        assert callback.scores.terms[term].layers == pytest.approx(expected, rel=1e-4)
        assert min(expected) > 0


def test_fisher_is_taken_at_the_checkpoint_without_dropout(make_trainer: MakeTrainer) -> None:
    batches = Batches(3)
    module = ForeignModule(hidden_dropout_prob=0.5)
    by_hand = copy.deepcopy(module).eval()
    callback = BiasSelectionCallback(approach="fisher", batches=3, patience=0, clip_norm=None)
    make_trainer(callbacks=[callback], max_epochs=0).fit(module, batches.loader())

    value = find_bias_terms(by_hand)["value"]
    gradients: dict[int, list[Tensor]] = {index: [] for index in value}
    for ids, labels in batches.batches:
        loss = nn.functional.cross_entropy(by_hand.extra(by_hand.net(input_ids=ids).logits), labels)
        for index, gradient in zip(value, torch.autograd.grad(loss, list(value.values())), strict=True):
            gradients[index].append(gradient)
    assert callback.scores is not None
    expected = [fisher_score(drawn).item() for drawn in gradients.values()]
    assert callback.scores.terms["value"].layers == pytest.approx(expected, rel=1e-4)


class Exact(ForeignModule):
    """The loss in the precision of the model."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        ids, labels = batch
        return nn.functional.cross_entropy(self.extra(self.net(input_ids=ids).logits), labels)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_sample_fisher_is_the_mean_squared_gradient_of_single_examples(
    model_type: str, make_trainer: MakeTrainer
) -> None:
    """In fp64, and with a short last batch, whose examples count as much as others."""
    torch.manual_seed(9)
    batches = Batches(3)
    batches.batches[2] = [part[:3] for part in batches.batches[2]]
    module = Exact(model_type).double()
    by_hand = copy.deepcopy(module).eval()
    callback = BiasSelectionCallback(approach="sample_fisher", batches=3, patience=0)
    make_trainer(callbacks=[callback], max_epochs=0, precision="64-true").fit(module, batches.loader())
    split_fused_biases(by_hand)
    for term, layers in find_bias_terms(by_hand).items():
        if term not in ("query", "key", "value"):
            continue
        gradients: dict[int, list[Tensor]] = {index: [] for index in layers}
        for ids, labels in batches.batches:
            for i in range(len(labels)):
                logits = by_hand.extra(by_hand.net(input_ids=ids[i : i + 1]).logits)
                loss = nn.functional.cross_entropy(logits, labels[i : i + 1])
                for index, gradient in zip(layers, torch.autograd.grad(loss, list(layers.values())), strict=True):
                    gradients[index].append(gradient)
        assert len(gradients[0]) == 19
        assert callback.scores is not None
        expected = [fisher_score(drawn).item() for drawn in gradients.values()]
        assert callback.scores.terms[term].layers == pytest.approx(expected, rel=1e-12)


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


class Broken(ForeignModule):
    """A training step that goes wrong in a chosen way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return {
            "nan": loss * float("nan"),
            "detached": loss.detach().requires_grad_(),
            "detached from all": loss.detach(),
            "none": None,
            "text": "0.7",
            "nan gradient": loss + (loss * 0).sqrt(),
            "no gradient": loss * 0,
            "dict": {"loss": loss},
        }[self.how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "loss of scoring batch 1 is nan"),
        ("detached", "no gradient reaches the candidate biases"),
        ("detached from all", "no gradient reaches the candidate biases"),
        ("none", "no training batch gave a loss"),
        ("text", "returned str instead of a loss tensor"),
        ("nan gradient", "scores are not finite after batch 1"),
        ("no gradient", "every score is zero"),
    ],
)
def test_an_unusable_loss_is_an_error_and_leaves_nothing_behind(
    how: str, message: str, make_trainer: MakeTrainer, tmp_path: Any
) -> None:
    module = Broken(how)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ScoringError, match=message):
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(module, token_batches())
    torch.testing.assert_close(dict(module.state_dict()), dict(before), rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_in_a_dictionary_is_found(make_trainer: MakeTrainer) -> None:
    callback = BiasSelectionCallback()
    make_trainer(callbacks=[callback], max_epochs=0).fit(Broken("dict"), token_batches())
    assert callback.scores is not None


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


def test_an_error_of_the_training_step_says_where_it_happened(make_trainer: MakeTrainer) -> None:
    class NeedsHook(ForeignModule):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * float(self.made_in_on_fit_start)  # type: ignore[arg-type]

    with pytest.raises(AttributeError) as caught:
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(NeedsHook(), token_batches())
    assert "hooks such as on_fit_start" in caught.value.__notes__[0]


def test_no_training_batches_are_an_error(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ScoringError, match="limit_train_batches is 0"):
        make_trainer(callbacks=[BiasSelectionCallback()], limit_train_batches=0).fit(ForeignModule(), token_batches())


def test_a_lone_inert_term_is_found_out(make_trainer: MakeTrainer) -> None:
    mine = Architecture(layer="encoder.layer.{}", terms={"key": "attention.self.key"})
    with pytest.raises(ScoringError, match="every score is zero|inert and therefore left out: key"):
        make_trainer(callbacks=[BiasSelectionCallback(terms=["key"], architecture=mine)]).fit(
            ForeignModule(), token_batches()
        )
