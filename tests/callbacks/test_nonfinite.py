"""A fit that has diverged ends, and its last good checkpoint stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from beft_lightning.callbacks import AdapterCheckpoint, LastCheckpoint, NonFiniteCheck
from beft_lightning.errors import NonFiniteError
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]


class Diverges(ForeignModule):
    """Has one bad value, of the kind and in the step that it is told."""

    def __init__(self, kind: str, step: int, value: float = float("nan")) -> None:
        super().__init__()
        self.kind, self.step, self.value = kind, step, value

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        now = self.trainer.global_step == self.step
        return loss * self.value if now and self.kind == "loss" else loss

    def on_after_backward(self) -> None:
        if self.trainer.global_step == self.step and self.kind == "gradient":
            assert self.extra.bias.grad is not None
            self.extra.bias.grad[0] = self.value

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.trainer.global_step == self.step and self.kind == "value":
            self.extra.bias.data[0] = self.value


@pytest.fixture
def fit(make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    def run(module: ForeignModule, check: NonFiniteCheck | None = None, **options: Any) -> Trainer:
        saving = LastCheckpoint(tmp_path, save_last=True, save_top_k=0)
        trainer = make_trainer(
            callbacks=[saving, check or NonFiniteCheck()], enable_checkpointing=True, **{"max_epochs": 3, **options}
        )
        trainer.fit(module, token_batches(24))
        return trainer

    return run


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("kind", "step", "message"),
    [
        ("loss", 8, r"the training loss is (nan|inf) at step 8 \(epoch 1, learning rate 0.001\)"),
        ("gradient", 8, r"a gradient is not finite at step 8 \(epoch 1, "),
        ("value", 11, r"the trained values of extra.bias are not finite at step 12"),
    ],
)
def test_the_fit_stops_with_its_last_good_checkpoint(
    kind: str, step: int, message: str, value: float, fit: Any, tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteError, match=f"{message}.*The last good checkpoint is {tmp_path / 'last.ckpt'}"):
        fit(Diverges(kind, step, value))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert all(tensor.isfinite().all() for tensor in saved["state_dict"].values())


@pytest.mark.parametrize("when", ["during", "after"])
def test_checkpoints_of_weights_only_are_looked_at_too(when: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Lightning calls no hook of a callback for them."""
    saving = ModelCheckpoint(tmp_path, save_weights_only=True, every_n_epochs=1 if when == "during" else 2)
    trainer = make_trainer(callbacks=[NonFiniteCheck(), saving, AdapterCheckpoint()], enable_checkpointing=True)
    module = Diverges("value", 5)

    def run() -> None:
        trainer.fit(module, token_batches(24))
        trainer.save_checkpoint(tmp_path / "after.ckpt", weights_only=True)

    with pytest.raises(NonFiniteError, match="the trained values of extra.bias are not finite at step 6"):
        run()
    assert (trainer.state.status == "finished") == (when == "after")
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_later_fit_without_the_check_saves_what_there_is(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(callbacks=[NonFiniteCheck(), AdapterCheckpoint()])
    trainer.fit(ForeignModule(), token_batches(24))
    trainer.callbacks[:] = [AdapterCheckpoint()]  # type: ignore[attr-defined]
    trainer.fit_loop.max_epochs = 2
    trainer.fit(Diverges("value", trainer.global_step + 2), token_batches(24))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]["extra.bias"].isnan().any()


def test_without_a_checkpoint_it_says_so(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="The last good checkpoint is none: no checkpoint was written yet"):
        fit(Diverges("loss", 2))
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_loss_within_accumulated_batches_is_seen_before_the_step(fit: Any) -> None:
    module = Diverges("loss", 1)
    with pytest.raises(NonFiniteError, match="at step 1 "):
        fit(module, accumulate_grad_batches=2)
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_it_can_be_switched_off(fit: Any) -> None:
    with pytest.warns(UserWarning, match="the training loss is nan at step 2 .* Training goes on"):
        assert fit(Diverges("loss", 2), NonFiniteCheck(stop=False)).global_step == 18


class Scaler:
    """Skips steps with infinite gradients, as torch's scaler does; that one needs an accelerator for most of it."""

    def scale(self, loss: Tensor) -> Tensor:
        return loss

    def unscale_(self, optimizer: Any) -> None:
        pass

    def step(self, optimizer: Any, **kwargs: Any) -> None:
        if all(
            p.grad.isfinite().all() for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ):
            optimizer.step()

    def update(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


def test_infinite_gradients_are_left_to_a_scaler_but_not_losses(fit: Any) -> None:
    def precision() -> MixedPrecision:
        return MixedPrecision("16-mixed", "cpu", scaler=Scaler())  # type: ignore[arg-type]

    module = Diverges("gradient", 2, float("inf"))
    trainer = fit(module, plugins=[precision()], max_epochs=1)
    assert trainer.current_epoch == 1
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    with pytest.raises(NonFiniteError, match="the training loss is nan"):
        fit(Diverges("loss", 2), plugins=[precision()])
