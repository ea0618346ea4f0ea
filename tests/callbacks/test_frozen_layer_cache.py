"""Fits that run their frozen layers once for each example are the fits that run them each time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from beft_lightning import LanguageTaskModule
from beft_lightning.callbacks import AdapterCheckpoint, FrozenLayerCache
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from tests.tiny import WIDTH, ForeignModule, save_backbone

MakeTrainer = Callable[..., Trainer]


def base_of(module: Any) -> Any:
    """Return the encoder below the head."""
    return module.model.base_model


class Record(Callback):
    """Keeps the losses, and counts how often the first layer runs while training."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.runs = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layer = base_of(pl_module).encoder.layer[0]
        layer.register_forward_hook(lambda *_: setattr(self, "runs", self.runs + torch.is_grad_enabled()))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].item())


class Uncached(FrozenLayerCache):
    """The same modes, and every batch computed."""

    def _known(self) -> dict[int, Tensor]:
        return {}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny BERT whose dropout is in the head alone."""
    none: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.3}
    return save_backbone(tmp_path_factory.mktemp("calm"), **none)


def fit(
    make_trainer: MakeTrainer,
    backbone: str,
    folder: str,
    tune: str,
    *callbacks: Callback,
    padding: Any = "max_length",
    epochs: int = 3,
    ckpt: str | None = None,
) -> tuple[Record, Trainer]:
    seed_everything(3, verbose=False)
    data = Glue(
        backbone, task="sst2", data_dir=folder, batch_size=4, train_size=16, max_length=16, padding=padding, seed=0
    )
    module = LanguageTaskModule(backbone, data.task, tune=tune, learning_rate=1e-2)
    record = Record()
    trainer = make_trainer(callbacks=[record, AdapterCheckpoint(), *callbacks], max_epochs=epochs)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return record, trainer


@pytest.mark.parametrize("tune", ["head", "value.2", "value.1,query.2"])
@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_losses_are_those_of_a_fit_without_it(
    tune: str, padding: str, calm: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    """To the last bit where batches have one shape; and the first layer runs in one epoch and one batch more."""
    plain, _ = fit(make_trainer, calm, sst2_dir, tune, padding=padding)
    cached, trainer = fit(make_trainer, calm, sst2_dir, tune, FrozenLayerCache(), padding=padding)
    if padding == "max_length":
        assert cached.losses == plain.losses
    else:
        assert cached.losses == pytest.approx(plain.losses, rel=1e-5)
    assert (plain.runs, cached.runs) == (12, 5)
    # The layers are back in their places.
    assert type(base_of(trainer.lightning_module).encoder.layer[0]).__name__ == "BertLayer"


def test_dropout_below_is_refused_and_turned_off_on_demand(
    backbone: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(BeftError, match=r"is random, by dropout \(Dropout\)\. Set below to 'eval'"):
        fit(make_trainer, backbone, sst2_dir, "value.2", FrozenLayerCache())
    computed, _ = fit(make_trainer, backbone, sst2_dir, "value.2", Uncached(below="eval"))
    cached, _ = fit(make_trainer, backbone, sst2_dir, "value.2", FrozenLayerCache(below="eval"))
    assert cached.losses == computed.losses
    assert (computed.runs, cached.runs) == (12, 5)


def test_a_resumed_fit_goes_on_as_one_that_was_not_stopped(
    calm: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    whole, _ = fit(make_trainer, calm, sst2_dir, "value.2", FrozenLayerCache(), epochs=4)
    first, trainer = fit(make_trainer, calm, sst2_dir, "value.2", FrozenLayerCache(), epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    options: dict[str, Any] = {"epochs": 4, "ckpt": str(tmp_path / "half.ckpt")}
    plain, _ = fit(make_trainer, calm, sst2_dir, "value.2", **options)
    rest, _ = fit(make_trainer, calm, sst2_dir, "value.2", FrozenLayerCache(), **options)
    assert first.losses == whole.losses[:8]
    assert rest.losses == plain.losses
    assert rest.runs == 5


def test_the_memory_is_known_beforehand(calm: str, sst2_dir: str, make_trainer: MakeTrainer) -> None:
    class Memory(Callback):
        kept = 0

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.kept = cache.kept_bytes

    cache, memory = FrozenLayerCache(), Memory()
    _, trainer = fit(make_trainer, calm, sst2_dir, "head", cache, memory, epochs=1)
    assert trainer.train_dataloader is not None
    assert memory.kept == cache.expected_bytes(WIDTH, trainer.train_dataloader) > 0
    assert cache.kept_bytes == 0


class Noisy(Callback):
    """Makes the embeddings random in a way that no option tells."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        base_of(pl_module).embeddings.register_forward_hook(lambda _, __, output: output + torch.rand(()))


class TrainsEmbeddings(Callback):
    """Trains a part below the layers."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        base_of(pl_module).embeddings.requires_grad_(True)


class ChangesTokens(Callback):
    """Gives the examples other tokens in each epoch, as augmentation does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        batch["input_ids"][:, 1] = 5 + trainer.current_epoch


@pytest.mark.parametrize(
    ("tune", "callback", "message"),
    [
        ("value", Callback(), "the lowest layer is trained"),
        ("value.2", Noisy(), "differs from before by more than rounding"),
        ("value.2", ChangesTokens(), r"the tokens of example \d+ have changed: leave it out"),
        ("value.2", TrainsEmbeddings(), "something below the lowest trained layer is trained"),
    ],
)
def test_where_states_do_not_repeat_it_is_refused(
    tune: str, callback: Callback, message: str, calm: str, sst2_dir: str, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(BeftError, match=message):
        fit(make_trainer, calm, sst2_dir, tune, callback, FrozenLayerCache())


def test_several_stacks_of_layers_and_several_processes_are_refused() -> None:
    with pytest.raises(BeftError, match=r"one stack of layers; T5\w+ has 2: leave it out"):
        FrozenLayerCache().on_train_start(Trainer(accelerator="cpu", logger=False), ForeignModule("t5"))
    two = Trainer(accelerator="cpu", devices=2, logger=False)
    with pytest.raises(BeftError, match="works in one process, and this fit has 2"):
        FrozenLayerCache().on_train_start(two, ForeignModule())
