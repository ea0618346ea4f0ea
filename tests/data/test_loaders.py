"""Loaders of each process."""

from typing import Any

import pytest

from beft_lightning.data import Glue
from beft_lightning.data.loaders import LoaderFactory, content_summary
from beft_lightning.errors import DataError


@pytest.fixture
def data(backbone: str, sst2_dir: str) -> Glue:
    data = Glue(backbone, task="sst2", data_dir=sst2_dir, batch_size=8, seed=0)
    data.setup("fit")
    return data


def ids(loader: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in loader]


def test_processes_share_the_training_set(data: Glue) -> None:
    features = data._splits["train"]
    parts = [
        [i for batch in ids(LoaderFactory(data.preprocessor, 0, 0, 2, rank).training(features, 4, 0)) for i in batch]
        for rank in range(2)
    ]
    assert len(parts[0]) == len(parts[1]) == 24
    assert sorted(parts[0] + parts[1]) == list(range(48))


@pytest.mark.parametrize("grouping", ["blocks", "epoch", "none"])
def test_a_step_has_the_same_examples_in_any_number_of_processes(grouping: Any, data: Glue) -> None:
    features = data._splits["train"][:44]  # the last step is not full
    alone, first, second = (
        ids(LoaderFactory(data.preprocessor, 0, 0, processes, rank, grouping).training(features, 8 // processes, 1))
        for processes, rank in ((1, 0), (2, 0), (2, 1))
    )
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(step) for step in alone]


def test_fewer_rows_than_processes_are_an_error(data: Glue) -> None:
    with pytest.raises(DataError, match="2 rows to train on are fewer than the 3 processes. Use fewer"):
        LoaderFactory(data.preprocessor, 0, 0, 3, 0).training(data._splits["train"][:2], 4, 0)


def test_each_process_evaluates_as_many_batches(data: Glue) -> None:
    features = data._splits["validation"]
    batches = [ids(LoaderFactory(data.preprocessor, 0, 0, 3, rank).evaluation(features, 5)) for rank in range(3)]
    assert len({len(part) for part in batches}) == 1
    assert {i for part in batches for batch in part for i in batch} == set(range(20))


def test_seed_and_epoch_determine_the_order(data: Glue) -> None:
    features = data._splits["train"]
    orders = [
        ids(LoaderFactory(data.preprocessor, seed).training(features, 8, epoch))
        for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert orders[0] == orders[1]
    assert orders[0] not in orders[2:]


def test_a_summary_tells_splits_apart(data: Glue) -> None:
    features = data._splits["train"]
    assert content_summary(features).startswith("48 examples, checksum ")
    assert content_summary(features) == content_summary(list(features)) != content_summary(features[::-1])
