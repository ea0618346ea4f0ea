"""Metrics that callbacks look at."""

from collections.abc import Callable
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def fit(backbone: str, sst2_dir: str, make_trainer: MakeTrainer) -> Any:
    def run(*callbacks: Callback, **options: Any) -> Trainer:
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=48)
        trainer = make_trainer(callbacks=[*callbacks], num_sanity_val_steps=0, **options)
        trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), data)
        return trainer

    return run


@pytest.mark.parametrize("name", ["val_loss", "val_accuracy", "train_loss"])
def test_what_is_logged_can_be_looked_at(name: str, fit: Any) -> None:
    assert fit(EarlyStopping(name)).current_epoch == 1


@pytest.mark.parametrize(
    ("callback", "options"),
    [
        (EarlyStopping("val_los"), {}),
        (ModelCheckpoint(monitor="accuracy"), {"enable_checkpointing": True}),
        (EarlyStopping("val_loss"), {"limit_val_batches": 0}),
    ],
)
def test_what_is_not_logged_is_an_error_before_the_first_step(callback: Any, options: Any, fit: Any) -> None:
    with pytest.raises(BeftError, match=f"{type(callback).__name__} looks at .* choose one of train_loss"):
        fit(callback, **options)


class LogsMine(Callback):
    """Logs a metric of the user's."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.log("mine", 1.0)


def test_a_callback_of_the_users_may_log_more(fit: Any) -> None:
    fit(LogsMine(), EarlyStopping("mine"))
    fit(EarlyStopping("nothing", strict=False))
