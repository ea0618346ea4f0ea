"""What was selected is what a fit trains, or there is one message."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning

from beft_lightning import BiasSelectionCallback
from beft_lightning.errors import BeftError
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


def selection() -> BiasSelectionCallback:
    return BiasSelectionCallback("fixed", ["value"])


class HeadOptimizer(ForeignModule):
    """Gives its optimizer the head alone, as before biases were to be trained."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.get_submodule("classifier").parameters())


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_what_is_in_no_optimizer_is_found_before_training(strategy: str, make_trainer: MakeTrainer) -> None:
    module = HeadOptimizer()
    trainer = make_trainer(callbacks=[selection()], strategy=strategy)
    with pytest.raises(BeftError, match=r"6 of the 8 parameters to train are in no optimizer, for example 'net.bert"):
        trainer.fit(module, token_batches())
    assert module.losses == []


def test_modules_that_optimize_manually_have_optimizers_of_their_own(make_trainer: MakeTrainer) -> None:
    class Manual(ForeignModule):
        automatic_optimization = False

        def on_train_start(self) -> None:
            self.own = torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            loss = super().training_step(batch, batch_idx)
            self.own.zero_grad()
            self.manual_backward(loss)
            self.own.step()

        def on_train_batch_end(self, *args: Any) -> None:
            pass

        def configure_optimizers(self) -> None:  # type: ignore[override]
            pass

    module = Manual()
    bias = module.net.get_parameter("bert.encoder.layer.0.attention.self.value.bias")
    before = bias.detach().clone()
    make_trainer(callbacks=[selection()]).fit(module, token_batches())
    assert not torch.equal(bias, before)


class WithBackbone(ForeignModule):
    """A module with the attribute that BackboneFinetuning unfreezes."""

    @property
    def backbone(self) -> torch.nn.Module:
        return self.net.get_submodule("bert")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad])


@pytest.mark.parametrize("selection_first", [False, True])
def test_what_is_unfrozen_later_is_found_before_it_trains(selection_first: bool, make_trainer: MakeTrainer) -> None:
    class Unfreezing(BackboneFinetuning):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pass

    callbacks = [selection(), Unfreezing(unfreeze_backbone_at_epoch=1)]
    module = WithBackbone()
    trainer = make_trainer(callbacks=callbacks if selection_first else callbacks[::-1], max_epochs=3)
    with pytest.raises(BeftError, match=r"parameters were unfrozen after the selection.*such as BackboneFinetuning"):
        trainer.fit(module, token_batches())
    assert len(module.losses) == 8  # the first epoch's


def test_what_is_frozen_later_is_found(make_trainer: MakeTrainer) -> None:
    class Freezing(ForeignModule):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.net.requires_grad_(False)

    module = Freezing()
    with pytest.raises(BeftError, match=r"6 parameters were frozen after the selection"):
        make_trainer(callbacks=[selection()], max_epochs=2).fit(module, token_batches())
    assert len(module.losses) == 8


@pytest.mark.parametrize("approach", ["fixed", "projection"])
def test_an_adapter_of_pefts_is_not_frozen_silently(approach: str, make_trainer: MakeTrainer) -> None:
    peft = pytest.importorskip("peft")
    module = ForeignModule()
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="SEQ_CLS")
    module.net = peft.get_peft_model(module.net, config)
    callback = BiasSelectionCallback(approach, ["value"])
    with pytest.raises(BeftError, match=r"of peft's with trainable parameters.*merge_and_unload"):
        make_trainer(callbacks=[callback]).fit(module, token_batches())
    assert any(parameter.requires_grad for name, parameter in module.named_parameters() if "lora_A" in name)
    merged: Any = module.net
    module.net = merged.merge_and_unload()
    make_trainer(callbacks=[callback]).fit(module, token_batches())
    assert module.losses


def test_a_training_step_can_ask_for_its_schedulers(make_trainer: MakeTrainer) -> None:
    class Scheduled(ForeignModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            scheduler: Any = self.lr_schedulers()
            self.log("rate", scheduler.get_last_lr()[0])
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    module, callback = Scheduled(), BiasSelectionCallback()
    trainer = make_trainer(callbacks=[callback])
    trainer.fit(module, token_batches())
    assert callback.scores is not None
    assert trainer.callback_metrics["rate"] == pytest.approx(module.learning_rate)
    assert isinstance(trainer.lr_scheduler_configs[0].scheduler, torch.optim.lr_scheduler.StepLR)
