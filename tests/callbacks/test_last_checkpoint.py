"""When ``last.ckpt`` is written, and that it is the newest state."""

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import model_checkpoint

from beft_lightning.callbacks import LastCheckpoint
from tests.tiny import ForeignModule, token_batches

MakeTrainer = Callable[..., Trainer]
LAST = {"save_last": True, "save_top_k": 0}


class SavedSteps(Callback):
    """The step that ``last.ckpt`` holds after each batch and each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.after_batches: list[int] = []
        self.after_epochs: list[int] = []

    def _saved(self) -> int:
        return int(torch.load(self.path, weights_only=True)["global_step"]) if self.path.exists() else 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.after_batches.append(self._saved())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after_epochs.append(self._saved())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after_epochs.append(self._saved())


@pytest.fixture
def watch(make_trainer: MakeTrainer, tmp_path: Path) -> Any:
    def run(saver: dict[str, Any], **options: Any) -> SavedSteps:
        watcher = SavedSteps(tmp_path / "saved" / "last.ckpt")
        saving = LastCheckpoint(tmp_path / "saved", **saver)
        trainer = make_trainer(
            callbacks=[watcher, saving],
            enable_checkpointing=True,
            **{"max_epochs": 3, "limit_val_batches": 0, **options},
        )
        trainer.fit(ForeignModule(), token_batches(24))
        return watcher

    return run


def test_it_is_written_after_each_epoch_and_the_only_file(watch: Any, tmp_path: Path) -> None:
    assert watch(LAST).after_epochs == [0, 6, 12, 18]
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["last.ckpt"]


def test_every_so_many_steps_and_at_the_end(watch: Any) -> None:
    watched = watch({**LAST, "every_n_train_steps": 4})
    assert watched.after_batches[:9] == [0, 0, 0, 0, 4, 4, 6, 6, 8]
    assert watched.after_epochs == [0, 6, 12, 18]


def test_every_so_often(watch: Any) -> None:
    assert watch({**LAST, "train_time_interval": timedelta(0)}).after_batches[:5] == [0, 1, 2, 3, 4]


def test_never_between_two_batches_of_one_step(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()  # read at the start, and then after each batch
    monkeypatch.setattr(model_checkpoint, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    interval = {**LAST, "train_time_interval": timedelta(seconds=4)}
    assert watch(interval, accumulate_grad_batches=3, max_epochs=1).after_batches == [0] * 6


def test_the_last_step_of_an_epoch_may_have_fewer_batches(watch: Any, tmp_path: Path) -> None:
    saver = {"save_top_k": -1, "every_n_train_steps": 2, "filename": "{step}"}
    watch(saver, accumulate_grad_batches=4, max_epochs=1)  # steps after the batches 4 and 6
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["step=2.ckpt"]


def test_another_runs_checkpoint_stays(watch: Any, tmp_path: Path) -> None:
    watch(LAST, max_epochs=1)
    watch(LAST, max_epochs=2)
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in (tmp_path / "saved").iterdir()}
    assert steps == {"last.ckpt": 6, "last-v1.ckpt": 12}


def test_beside_the_best(watch: Any, tmp_path: Path) -> None:
    watched = watch({"save_last": True, "save_top_k": 1, "monitor": "loss", "mode": "max", "filename": "best"})
    assert watched.after_epochs == [0, 6, 12, 18]
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_development_run_writes_nothing(watch: Any, tmp_path: Path) -> None:
    watch(LAST, fast_dev_run=2)
    assert not (tmp_path / "saved").exists()
