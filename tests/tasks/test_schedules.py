"""The learning rate over a fit, where it depends on a metric."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.cli import ReduceLROnPlateau

from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.callbacks import LastCheckpoint
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from tests.kill_results import different

MakeTrainer = Callable[..., Trainer]
#: A scheduler that takes no epoch for an improvement: the rate falls after the second, the third, and so on.
FALLING = partial(ReduceLROnPlateau, monitor="val_loss", patience=0, threshold=1e9, threshold_mode="abs")


class Rates(Callback):
    """Notes the learning rate of each epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def fit(backbone: str, sst2_dir: str, make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    def run(scheduler: Any = FALLING, folder: str = "a", resume: Path | None = None, **options: Any) -> Any:
        seed_everything(3, verbose=False)
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=16, seed=0)
        module = LanguageTaskModule(backbone, data.task, tune="value", learning_rate=1e-2, lr_scheduler=scheduler)
        rates = Rates()
        saving = LastCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        trainer = make_trainer(callbacks=[rates, saving, AdapterCheckpoint()], enable_checkpointing=True, **options)
        trainer.fit(module, data, ckpt_path=resume)
        return rates.seen, tmp_path / folder / "last.ckpt"

    return run


def test_the_rate_falls_where_a_metric_stays(fit: Any) -> None:
    assert fit(max_epochs=4)[0] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4])


def test_epochs_without_validation_do_not_count(fit: Any) -> None:
    assert fit(max_epochs=5, check_val_every_n_epoch=2)[0] == pytest.approx([1e-2] * 4 + [1e-3])


def test_a_resumed_fit_has_the_same_rates(fit: Any) -> None:
    """The checkpoint of an epoch holds what the scheduler has seen of it."""
    seen, whole = fit(max_epochs=4, folder="whole")
    _, first = fit(max_epochs=2)
    resumed, last = fit(max_epochs=4, folder="b", resume=first)
    assert resumed == seen[2:]
    assert not different(*(torch.load(path, weights_only=True) for path in (whole, last)))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (partial(ReduceLROnPlateau, monitor="val_f1"), "looks at 'val_f1', which is not logged: choose one of train_l"),
        (torch.optim.lr_scheduler.ReduceLROnPlateau, "does not say which metric it looks at"),
    ],
)
def test_a_metric_that_is_missing_is_an_error_before_the_first_step(scheduler: Any, message: str, fit: Any) -> None:
    with pytest.raises(BeftError, match=message):
        fit(scheduler, num_sanity_val_steps=0)
