"""The batches that scoring sees, and cutting them into examples."""

import copy
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    Subset,
)

from beft_lightning.callbacks import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.errors import ScoringError
from beft_lightning.scoring.batches import examples
from tests.tiny import ForeignModule


def test_each_example_keeps_the_structure() -> None:
    ids = torch.arange(6).view(3, 2)
    batch = {"inputs": (ids, [ids + 10]), "labels": torch.tensor([7, 8, 9]), "scale": torch.tensor(0.5), "keep": 4}
    cut = list(examples(batch))
    assert len(cut) == 3
    for i, example in enumerate(cut):
        assert list(example) == list(batch)
        assert torch.equal(example["inputs"][0], ids[i : i + 1])
        assert torch.equal(example["inputs"][1][0], ids[i : i + 1] + 10)
        assert example["labels"].tolist() == [7 + i]
        assert example["scale"] == 0.5
        assert example["keep"] == 4


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([torch.zeros(3, 2), torch.zeros(4)], r"tensors of first dimensions \[3, 4\]"),
        ({"ids": torch.zeros(3, 2), "texts": ["a", "b", "c"]}, r"texts or tensors of first dimensions \[3\]"),
        ({"texts": ["a", "b"]}, r"texts or tensors of first dimensions \[\]"),
        (torch.tensor(1.0), r"tensors of first dimensions \[\]"),
    ],
)
def test_what_cannot_be_cut_is_an_error_with_the_remedy(batch: Any, message: str) -> None:
    with pytest.raises(ScoringError, match=message + ".*Use approach 'fisher'.*batch size of 1"):
        list(examples(batch))


class Recorder(ForeignModule):
    """Notes each batch that its ``training_step`` sees, outside of itself."""

    note: Callable[[Any], None]

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        vars(self)["note"] = seen.append  # a method has no state to restore

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.note(copy.deepcopy(batch))
        if isinstance(batch, dict):
            return sum(super(Recorder, self).training_step(part, batch_idx) for part in batch.values())  # type: ignore[return-value]
        return super().training_step(batch, batch_idx)


class Rows(Dataset[list[Tensor]]):
    """Rows of token ids and labels."""

    def __init__(self, count: int = 40) -> None:
        self.ids = torch.randint(4, 20, (count, 6), generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> list[Tensor]:
        return [self.ids[index], self.ids[index, 0] % 2]


class Noisy(Rows):
    """Draws a token of each row from a generator of its own."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator

    def __getitem__(self, index: int) -> list[Tensor]:
        ids, label = super().__getitem__(index)
        draw = getattr(self.generator, "randrange", None) or getattr(self.generator, "integers", None)
        token = torch.randint(4, 20, (), generator=self.generator) if draw is None else draw(4, 20)
        return [torch.cat([ids[1:], torch.as_tensor(token).view(1)]), label]


class Cached(Rows):
    """Counts in its rows how often each was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, int] = {}

    def __getitem__(self, index: int) -> list[Tensor]:
        ids, label = super().__getitem__(index)
        self.asked[index] = self.asked.get(index, 0) + 1
        return [ids, label * 0 + self.asked[index] % 2]


class Shuffled(Sampler[int]):
    """Shuffles its places with a generator of its own."""

    def __init__(self) -> None:
        self.places = list(range(40))
        self.random = random.Random(5)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        self.random.shuffle(self.places)
        return iter(self.places)


class ByEpoch(Sampler[list[int]]):
    """A batch sampler that counts its epochs."""

    epoch = 0

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[list[int]]:
        self.epoch += 1
        order = torch.randperm(40, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([order[i : i + 4] for i in range(0, 40, 4)])


class Stream(IterableDataset[list[Tensor]]):
    """Goes on where it was: a second pass begins after the first."""

    def __init__(self) -> None:
        self.rows = Rows(400)
        self.place = 0

    def __iter__(self) -> Iterator[list[Tensor]]:
        for _ in range(40):
            self.place += 1
            yield self.rows[self.place % 400]


class Collator:
    """Shuffles the tokens of a batch with a generator of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(2)
        self.lock = threading.Lock()

    def __call__(self, rows: list[list[Tensor]]) -> list[Tensor]:
        ids, labels = (torch.stack(column) for column in zip(*rows, strict=True))
        return [ids[:, self.generator.permutation(6)], labels]


class Batches(list[Any]):
    """A list of batches; of an ordinary list, Lightning takes each element for a loader."""


def batches_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 4, **options})


LOADERS: dict[str, Callable[[], Any]] = {
    "global order": lambda: batches_of(Rows(), shuffle=True),
    "own order": lambda: batches_of(Rows(), shuffle=True, generator=torch.Generator().manual_seed(4)),
    "two workers": lambda: batches_of(Rows(), shuffle=True, num_workers=2),
    "two workers, own order": lambda: batches_of(
        Rows(), shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(4)
    ),
    "persistent workers": lambda: batches_of(Rows(), shuffle=True, num_workers=2, persistent_workers=True),
    "noise of workers": lambda: batches_of(
        Noisy(torch.default_generator), num_workers=2, persistent_workers=True, shuffle=True
    ),
    "shuffling sampler": lambda: batches_of(Rows(), sampler=Shuffled()),
    "counting batch sampler": lambda: DataLoader(Rows(), batch_sampler=ByEpoch()),
    "distributed sampler": lambda: batches_of(Rows(), sampler=DistributedSampler(Rows(), 2, 1, seed=3)),
    "python noise": lambda: batches_of(Noisy(random.Random(1))),
    "numpy noise": lambda: batches_of(Subset(Noisy(np.random.default_rng(1)), range(36)), shuffle=True),
    "torch noise": lambda: batches_of(ConcatDataset([Noisy(torch.Generator().manual_seed(1)), Rows()]), shuffle=True),
    "cache": lambda: batches_of(Cached(), shuffle=True),
    "stream": lambda: batches_of(Stream()),
    "stream of two workers": lambda: batches_of(Stream(), num_workers=2),
    "noisy collator": lambda: batches_of(Rows(), collate_fn=Collator()),
    "list": lambda: Batches(batches_of(Rows())),
    "dictionary": lambda: {"a": batches_of(Rows(), shuffle=True), "b": batches_of(Rows(12), shuffle=True)},
    "shortest": lambda: CombinedLoader(
        {"a": batches_of(Rows(), shuffle=True), "b": batches_of(Rows(24), shuffle=True)}, "min_size"
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_scoring_sees_the_first_batches_of_the_fit_which_are_those_of_a_fixed_fit(
    name: str, make_trainer: Callable[..., Trainer]
) -> None:
    """Bit by bit, with the losses and the weights at the end; over more than the first epoch, where that is short."""

    def fit(callback: BiasSelectionCallback) -> tuple[list[Any], Recorder]:
        torch.manual_seed(1)
        seen: list[Any] = []
        module = Recorder(seen)
        make_trainer(callbacks=[callback], max_epochs=3).fit(module, LOADERS[name]())
        return seen, module

    # An approach that draws the fit's random numbers, those of dropout: the second epoch's order depends on them.
    callback = BiasSelectionCallback("projection", batches=13, patience=0)
    seen, module = fit(callback)
    assert callback.selected is not None
    expected, fixed = fit(BiasSelectionCallback("fixed", callback.selected))
    assert len(expected) >= 15
    torch.testing.assert_close(seen[13:], expected, rtol=0, atol=0)
    torch.testing.assert_close(seen[:13], expected[:13], rtol=0, atol=0)
    assert module.losses == fixed.losses
    torch.testing.assert_close(module.state_dict(), fixed.state_dict(), rtol=0, atol=0)


def test_what_a_training_step_does_to_its_batch_is_not_done_to_the_fits(make_trainer: Callable[..., Trainer]) -> None:
    class Popping(ForeignModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            labels = batch.pop("labels")
            return super().training_step([batch["ids"].clamp_(max=9), labels], batch_idx)

    loader = Batches({"ids": ids, "labels": labels} for ids, labels in batches_of(Rows()))
    before = copy.deepcopy(loader)
    make_trainer(callbacks=[BiasSelectionCallback()], max_epochs=0).fit(Popping(), loader)
    torch.testing.assert_close(loader, before, rtol=0, atol=0)


def test_a_loader_that_was_set_up_before_is_not_touched(make_trainer: Callable[..., Trainer]) -> None:
    """By a module that asks in ``setup`` how many steps there will be."""

    class Asking(Recorder):
        def setup(self, stage: str) -> None:
            assert self.trainer.estimated_stepping_batches in (12, 20)

    def fit(callback: BiasSelectionCallback, loader: Any) -> list[Any]:
        torch.manual_seed(1)
        seen: list[Any] = []
        make_trainer(callbacks=[callback], max_epochs=2).fit(Asking(seen), loader)
        return seen

    for name in ("own order", "persistent workers", "shuffling sampler", "shortest"):
        scored = fit(BiasSelectionCallback(batches=6, patience=0), LOADERS[name]())
        torch.testing.assert_close(
            scored[6:], fit(BiasSelectionCallback("fixed", ["value"]), LOADERS[name]()), rtol=0, atol=0
        )


def test_workers_are_started_once_for_scoring_and_once_for_the_fit(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def started(number: int) -> None:
        (tmp_path / f"{number}-{os.getpid()}").touch()

    loader = batches_of(Rows(), num_workers=1, persistent_workers=True, worker_init_fn=started)
    make_trainer(callbacks=[BiasSelectionCallback(batches=15, patience=0)], max_epochs=2).fit(ForeignModule(), loader)
    assert len(list(tmp_path.glob("0-*"))) == 2


def rows_once() -> Iterator[Any]:
    yield from batches_of(Rows())


class Lines(IterableDataset[Any]):
    """Reads from a generator that it keeps."""

    def __init__(self) -> None:
        self.lines = map(Rows().__getitem__, range(40))

    def __iter__(self) -> Iterator[Any]:
        return self.lines


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (rows_once, r"is an iterator \(generator\)"),
        (lambda: {"a": batches_of(Rows()), "b": iter(list(batches_of(Rows())))}, r"is an iterator \(list_iterator\)"),
        (lambda: batches_of(Lines()), r"reads from an iterator, Lines\.lines"),
    ],
)
def test_batches_that_come_once_are_not_scored(
    make: Callable[[], Any], message: str, make_trainer: Callable[..., Trainer]
) -> None:
    loader = make()
    with pytest.raises(ScoringError, match=message + ".*can be iterated again.*approach='fixed'"):
        make_trainer(callbacks=[BiasSelectionCallback()]).fit(Recorder([]), loader)
    # None of them is lost.
    module = Recorder(seen := [])  # type: ignore[var-annotated]
    make_trainer(callbacks=[BiasSelectionCallback("fixed", ["value"])]).fit(module, loader)
    assert len(seen) == 10


class Own(LightningDataModule):
    """Makes its loaders with a generator of its own, and a batch size that can be found."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 2
        self.generator = torch.Generator().manual_seed(8)
        self.made = 0

    def train_dataloader(self) -> DataLoader[Any]:
        self.made += 1
        seed = int(torch.randint(1000, (), generator=self.generator)) + self.made
        return batches_of(
            Rows(), batch_size=self.batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed)
        )


class Ordered(Own):
    """Leaves the order to the global generator."""

    def train_dataloader(self) -> DataLoader[Any]:
        return batches_of(Rows(), batch_size=self.batch_size, shuffle=True)


@pytest.mark.parametrize("data", [Own, Ordered])
@pytest.mark.parametrize("finder", ["none", "rate", "size", "both"])
def test_finders_of_lightning_find_the_same(finder: str, data: Any, make_trainer: Callable[..., Trainer]) -> None:
    """Learning rate, batch size, batches, losses, weights."""

    def fit(callback: BiasSelectionCallback) -> tuple[list[Any], Recorder, LightningDataModule]:
        torch.manual_seed(1)
        seen: list[Any] = []
        module, datamodule = Recorder(seen), data()
        callbacks: list[Callback] = [callback, AdapterCheckpoint()]
        if finder in ("size", "both"):
            callbacks.append(BatchSizeFinder(max_trials=2, steps_per_trial=2))
        if finder in ("rate", "both"):
            callbacks.insert(0, LearningRateFinder(num_training_steps=20, min_lr=1e-5, max_lr=1e-2))
        make_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=2).fit(module, datamodule)
        return seen, module, datamodule

    callback = BiasSelectionCallback(batches=5, patience=0)
    seen, module, datamodule = fit(callback)
    assert callback.selected is not None
    expected, fixed, other = fit(BiasSelectionCallback("fixed", callback.selected))
    torch.testing.assert_close(seen[5:], expected, rtol=0, atol=0)
    assert vars(datamodule)["batch_size"] == vars(other)["batch_size"] == (4 if finder in ("size", "both") else 2)
    assert module.learning_rate == fixed.learning_rate
    assert (module.learning_rate != 1e-3) == (finder in ("rate", "both"))
    assert module.losses == fixed.losses
    torch.testing.assert_close(module.state_dict(), fixed.state_dict(), rtol=0, atol=0)
