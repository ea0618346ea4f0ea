"""Epochs that can be begun in the middle; see test_strategies for runs in several processes."""

from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.data.resumable import ResumableDataLoader
from beft_lightning.errors import DataError


@pytest.fixture
def make(backbone: str, sst2_dir: str) -> Any:
    def build(**options: Any) -> ResumableDataLoader:
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, **{"batch_size": 8, "seed": 0, **options})
        data.setup("fit")
        loader = data.train_dataloader()
        assert isinstance(loader, ResumableDataLoader)
        return loader

    return build


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


@pytest.mark.parametrize(("workers", "grouping"), [(0, "blocks"), (1, "blocks"), (0, "epoch"), (0, "none")])
def test_the_rest_of_an_epoch_is_what_had_not_been_seen(workers: int, grouping: str, make: Any) -> None:
    whole = ids(make(group_by_length=grouping))
    first = make(group_by_length=grouping)
    batches = iter(first)
    seen = ids([next(batches), next(batches)])
    again = make(num_workers=workers, group_by_length=grouping)
    again.load_state_dict(first.state_dict())
    assert seen + ids(again) == whole
    assert len(ids(again)) == len(whole)  # and the next epoch is whole


@pytest.mark.parametrize("saved", ["on_train_batch_end", "on_before_backward"])
def test_a_batch_counts_when_the_trainer_is_done_with_it(
    saved: str, backbone: str, sst2_dir: str, make_trainer: Any
) -> None:
    """The loader has given one more in the middle of a step, and the loop will ask for that one again."""
    states: list[int] = []

    class Note(Callback):
        pass

    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    trainer: Trainer = make_trainer(callbacks=[note := Note()], max_epochs=2, limit_train_batches=4)
    setattr(note, saved, lambda *args: states.append(trainer.train_dataloader.state_dict()["batches"]))  # type: ignore[union-attr]
    trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data)
    done = [1, 2, 3, 0] if saved == "on_train_batch_end" else [0, 1, 2, 3]
    assert states == done * 2


def test_after_a_whole_epoch_the_next_one_begins(make: Any) -> None:
    first, again = make(), make(seed=1)
    assert len(ids(first)) == 6
    again.load_state_dict(first.state_dict())
    assert len(ids(again)) == 6


@pytest.mark.parametrize("options", [{"seed": 1}, {"train_size": 40}, {"batch_size": 4}, {"group_by_length": "epoch"}])
def test_the_middle_of_another_epoch_is_an_error(options: dict[str, Any], make: Any) -> None:
    first = make()
    next(iter(first))
    with pytest.raises(
        DataError, match="written in the middle of an epoch with examples a step 8, examples 48, seed 0"
    ):
        make(**options).load_state_dict(first.state_dict())


def test_lightning_may_put_in_another_sampler(backbone: str, sst2_dir: str, make_trainer: Any) -> None:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    trainer: Trainer = make_trainer(overfit_batches=2, max_epochs=2)
    trainer.fit(LanguageTaskModule(backbone, data.task, tune="value"), datamodule=data)
    assert trainer.global_step == 4
