"""Modules whose own training step shows where the attention is: no transformers model, or none that a twin explains."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedConfig, PreTrainedModel

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.adapter import load_adapter
from beft_lightning.bias.found import noted
from beft_lightning.bias.scope import inert_terms
from beft_lightning.bias.structure import split_named_biases
from beft_lightning.errors import ArchitectureError, BeftError
from beft_lightning.scoring.watched_step import must_run
from tests.tiny import make_model

MakeTrainer = Callable[..., Trainer]


class Mine(LightningModule):
    """A transformer of torch's own, on sequences of vectors; with ``attention`` false, an MLP."""

    def __init__(self, attention: bool = True, manual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.1, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2) if attention else nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 2)
        self.automatic_optimization = not manual
        self.steps = 0

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.steps += 1
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.head(self.body(inputs).mean(dim=1)), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        self.validated = self.head(self.body(batch[0]).mean(dim=1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def batches() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 5, 16, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs.mean(dim=(1, 2)) > 0).long()), batch_size=4)


def selection(**options: Any) -> BiasSelectionCallback:
    return BiasSelectionCallback(head=["head.*"], **options)


def test_a_fit_and_its_checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """The part trains alone, and the checkpoint's values come back into a module whose bias is whole."""
    module, callback = Mine(), selection(approach="fixed", terms=["value"])
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    saving = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    make_trainer(callbacks=[callback, saving, AdapterCheckpoint()], enable_checkpointing=True).fit(module, batches())
    assert module.steps == 3  # a step that is watched leaves no trace
    parts = [f"body.layers.{i}.self_attn.parametrizations.in_proj_bias.original2" for i in range(2)]
    assert callback.trained == [*parts, "head.weight", "head.bias"]
    moved = {name for name, p in module.named_parameters() if name in before and not torch.equal(p, before[name])}
    assert moved == {"head.weight", "head.bias"}
    assert all(module.get_parameter(part).any() for part in parts)
    fresh = Mine()
    load_adapter(fresh, tmp_path / "last.ckpt")
    assert [name for name, _ in fresh.named_parameters()] == [name for name, _ in module.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), module.parameters(), strict=True))


def test_an_evaluation_needs_no_watching(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """The checkpoint brings the structure, also to a callback that has never seen a fit."""
    module = Mine()
    trainer = make_trainer(callbacks=[selection(approach="fixed", terms=["value"]), AdapterCheckpoint()])
    trainer.fit(module, batches())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh = Mine()
    callbacks = [selection(approach="fixed", terms=["value"]), AdapterCheckpoint()]
    make_trainer(callbacks=callbacks).validate(fresh, batches(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(module.state_dict()), rtol=0, atol=0)
    assert fresh.steps == 0


class Renamed(Mine):
    """The same under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = self.body
        del self.body

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.stack(batch[0]).mean(dim=1)), batch[1])


class Unpacking(Mine):
    """Its step needs what its hook makes of a batch on the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {"inputs": batch[0], "labels": batch[1]}

    def training_step(self, batch: Any) -> Tensor:
        return super().training_step([batch["inputs"], batch["labels"]])


def test_the_batch_comes_through_all_hooks(make_trainer: MakeTrainer) -> None:
    callback = selection(approach="fixed", terms=["value"])
    make_trainer(callbacks=[callback]).fit(Unpacking(), batches())
    assert len(callback.trained) == 4


def test_each_fit_watches_its_own_module(make_trainer: MakeTrainer) -> None:
    """What was found in one does not describe the next, and a module can be fitted again."""
    callback, module = selection(approach="fixed", terms=["value"]), Mine()
    for fitted, name in [(module, "body"), (Renamed(), "stack"), (module, "body")]:
        make_trainer(callbacks=[callback]).fit(fitted, batches())
        assert f"{name}.layers.0.self_attn.parametrizations.in_proj_bias.original2" in callback.trained
        assert callback.architecture is None


def test_a_module_of_half_precision_is_watched_in_the_precision_of_its_fit(make_trainer: MakeTrainer) -> None:
    module, callback = Mine().bfloat16(), selection(approach="fixed", terms=["value"])
    make_trainer(callbacks=[callback], precision="bf16-mixed").fit(module, batches())
    assert {module.get_parameter(name).dtype for name in callback.trained} == {torch.float32}
    assert module.get_parameter("body.layers.0.linear1.weight").dtype == torch.bfloat16
    with pytest.raises(BeftError, match="Set precision to 'bf16-mixed'"):
        make_trainer(callbacks=[callback]).fit(Mine().bfloat16(), batches())


def test_scores_choose_a_part(make_trainer: MakeTrainer) -> None:
    module, callback = Mine(), selection(approach="fisher", batches=2)
    make_trainer(callbacks=[callback]).fit(module, batches())
    assert callback.scores is not None
    assert list(callback.scores.terms) == ["query", "key", "value"]
    assert callback.scores.terms["key"].inert  # probed
    assert callback.selected is not None
    assert callback.selected[0] in ("query", "value")


class OddConfig(PreTrainedConfig):
    """Of a type that nobody knows."""

    model_type = "odd"
    hidden_size = 16
    num_attention_heads = 2


class OddLayer(nn.Module):
    """Attention with a fused projection."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (each.unflatten(-1, (2, 8)).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        return x + self.proj(nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Odd(PreTrainedModel):
    """A model of transformers whose inputs cannot be made up."""

    config_class = OddConfig

    def __init__(self, config: OddConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(OddLayer() for _ in range(2))
        self.classifier = nn.Linear(16, 2)
        self.post_init()

    def forward(self, secret: Tensor, *, other: Any) -> Any:
        for layer in self.layers:
            secret = layer(secret)
        return self.classifier(secret.mean(dim=1))


class Holding(LightningModule):
    """Somebody's module around such models, in a list, and one of the table; ``called`` says which its step runs."""

    def __init__(self, called: Sequence[str] = ("nets.0", "nets.1"), manual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.nets = nn.ModuleList(Odd(OddConfig()) for _ in range(2))
        self.bert = make_model("bert")
        self.called, self.automatic_optimization = called, not manual

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.get_submodule(name)(x, other=None) for name in self.called]).sum(dim=0)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        self.validated = self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def in_scope(scope: str | list[str], term: str = "value", **options: Any) -> BiasSelectionCallback:
    return BiasSelectionCallback("fixed", [term], scope=scope, **options)


PART = "layers.{}.qkv.parametrizations.bias.original2"


def test_a_model_without_a_twin_is_watched_in_the_step(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Its checkpoint is that of a model that was found by a twin."""
    module = Holding()
    assert must_run(module, "nets.1")
    trainer = make_trainer(callbacks=[callback := in_scope("nets.1"), AdapterCheckpoint()])
    trainer.fit(module, batches())
    parts = [f"nets.1.{PART.format(layer)}" for layer in range(2)]
    assert callback.trained == parts
    assert all(module.get_parameter(part).any() for part in parts)
    assert not must_run(module, "nets.1")
    assert must_run(module, "nets.0")
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh, other = Holding(), Holding()
    validating = make_trainer(callbacks=[in_scope("nets.1"), AdapterCheckpoint()])
    validating.validate(fresh, batches(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    load_adapter(other, tmp_path / "a.ckpt")
    for loaded in (fresh, other):
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), module.parameters(), strict=True))
        assert not must_run(loaded, "nets.1")  # The checkpoint tells.


def test_a_full_checkpoint_does_not_say_how_a_bias_is_divided() -> None:
    with pytest.raises(
        ArchitectureError, match="parts of the bias of 'nets.1.layers.0.qkv'.*AdapterCheckpoint has writ"
    ):
        split_named_biases(Holding(), [f"nets.1.{PART.format(0)}"])


def test_equal_models_in_a_list_are_told_apart(make_trainer: MakeTrainer) -> None:
    callback = in_scope(["nets.0", "nets.1"], "nets.0.value")
    make_trainer(callbacks=[callback]).fit(Holding(), batches())
    assert callback.trained[:2] == [f"nets.0.{PART.format(layer)}" for layer in range(2)]


def test_a_model_of_the_table_keeps_its_entry_and_need_not_run(make_trainer: MakeTrainer) -> None:
    module, callback = Holding(), in_scope(["nets.0", "bert"])
    make_trainer(callbacks=[callback]).fit(module, batches())
    assert noted(module.bert) is None
    assert "bert.bert.encoder.layer.0.attention.self.value.bias" in callback.trained
    assert inert_terms(module, scope="bert") == ("key",)


def test_a_model_that_the_step_does_not_run_is_an_error_and_leaves_no_note(make_trainer: MakeTrainer) -> None:
    module, callback = Holding(called=["nets.0"]), in_scope("nets.1")
    with pytest.raises(
        ArchitectureError, match=r"(?s)no small Odd could be run.*in vain: nets\.1 \(Odd\): no attention"
    ):
        make_trainer(callbacks=[callback]).fit(module, batches())
    module.called = ["nets.1"]
    make_trainer(callbacks=[callback]).fit(module, batches())
    assert len(callback.trained) == 2


def test_a_step_that_cannot_be_watched_keeps_the_reason_of_the_twin(make_trainer: MakeTrainer) -> None:
    with pytest.raises(
        ArchitectureError, match=r"(?s)no small Odd could be run.*in vain: Holding cannot be run on a sin"
    ):
        make_trainer(callbacks=[in_scope("nets.0")]).fit(Holding(manual=True), batches())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": False}, r"Mine: no attention was seen.*2 layers were called \(body.0, head\)"),
        ({"manual": True}, r"cannot be run on a single batch before(?s:.*)architecture:"),
    ],
)
def test_what_cannot_be_watched_is_an_error(options: dict[str, bool], message: str, make_trainer: MakeTrainer) -> None:
    with pytest.raises(ArchitectureError, match=message):
        make_trainer(callbacks=[selection(approach="fixed", terms=["value"])]).fit(Mine(**options), batches())
