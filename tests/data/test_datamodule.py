"""Subsets, tokens and batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from beft_lightning.data import Glue
from beft_lightning.errors import DataError


@pytest.fixture
def make(backbone: str, sst2_dir: str) -> Any:
    def build(**options: Any) -> Glue:
        data = Glue(backbone, task="sst2", data_dir=sst2_dir, **{"batch_size": 8, "seed": 0, **options})
        data.setup("fit")
        return data

    return build


@pytest.fixture
def prompted(decoder: str, sst2_dir: str) -> Any:
    def build(**options: Any) -> Glue:
        data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, **{"batch_size": 4, "seed": 0, **options})
        data.setup("fit")
        return data

    return build


def ids(data: Glue) -> list[int]:
    return [i for batch in data.train_dataloader() for i in batch["id"].tolist()]


def test_a_subset_is_the_prefix_of_the_published_permutation(make: Any) -> None:
    expected = np.random.RandomState(3).permutation(48)
    for size in (16, 32):
        assert sorted(ids(make(train_size=size, seed=3))) == sorted(expected[:size].tolist())


def test_smaller_sets_are_parts_of_larger_ones(make: Any) -> None:
    assert set(ids(make(train_size=8))) < set(ids(make(train_size=24))) < set(ids(make(train_size="all")))


def test_the_seed_is_by_default_that_of_the_run(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    assert ids(make(train_size=16, seed=None)) == ids(make(train_size=16, seed=3))


def test_batches_are_padded_to_their_own_longest_example(make: Any) -> None:
    batches = list(make().train_dataloader())
    assert len({batch["input_ids"].shape[1] for batch in batches}) > 1
    for batch in batches:
        assert batch["attention_mask"].sum(dim=1).max() == batch["input_ids"].shape[1]
        assert batch["labels"].dtype == torch.long


def test_padding_to_a_fixed_length_holds_the_same_examples(make: Any) -> None:
    fixed = make(padding="max_length", max_length=20)
    assert {tuple(batch["input_ids"].shape) for batch in fixed.train_dataloader()} == {(8, 20)}
    assert sorted(ids(fixed)) == sorted(ids(make()))


def test_long_inputs_are_cut(make: Any) -> None:
    assert max(batch["input_ids"].shape[1] for batch in make(max_length=5).train_dataloader()) == 5


def test_evaluation_sees_every_example_once_whatever_the_batch(make: Any) -> None:
    for size in (3, 64):
        (loader,) = make(eval_batch_size=size).val_dataloader()
        assert sorted(i for batch in loader for i in batch["id"].tolist()) == list(range(20))


def test_the_dev_set_is_of_the_training_split_and_not_trained_on(make: Any) -> None:
    data = make(train_size=16, dev_size=10)
    (loader,) = data.val_dataloader()
    dev = {i for batch in loader for i in batch["id"].tolist()}
    order = np.random.RandomState(0).permutation(48)
    assert set(ids(data)) == set(order[:16])
    assert dev == set(order[16:26])
    data.setup("test")
    (reported,) = data.test_dataloader()
    assert sum(len(batch["id"]) for batch in reported) == 20
    assert len(ids(make(train_size="all", dev_size=8))) == 40


def test_any_split_can_be_reported(make: Any) -> None:
    data = make(evaluation_splits=["validation", "train"])
    assert [sum(len(batch["id"]) for batch in loader) for loader in data.val_dataloader()] == [20, 48]
    with pytest.raises(DataError, match="other"):
        make(evaluation_splits=["other"])


def test_workers_give_the_same_batches(make: Any) -> None:
    assert ids(make(num_workers=1)) == ids(make())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 4}, "training set of 4 examples is smaller than one batch of 8"),
        ({"train_size": 0}, "train_size is 0: it must be at least 1"),
        ({"train_size": -3}, "train_size is -3: it must be at least 1"),
        ({"eval_size": 0}, "eval_size is 0: it must be at least 1"),
        ({"eval_size": -3}, "eval_size is -3: it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0: it must be at least 1"),
        ({"max_length": 0}, "max_length is 0: it must be at least 1"),
        ({"dev_size": -1}, "dev_size is -1: it must be at least 0"),
        ({"num_workers": -1}, "num_workers is -1: it must be at least 0"),
        ({"train_size": 49}, "asks for 49 examples of sst2, but there are only 48"),
        ({"dev_size": 48}, "dev_size 48 leaves none of the training examples"),
        ({"dev_size": 20, "train_size": 29}, "asks for 29 examples of sst2, but there are only 28"),
        ({"train_size": "low"}, "asks for 1,000 examples"),
        ({"train_size": "tiny"}, "'tiny' is not defined for sst2; use low, medium, high, all, or a number"),
    ],
)
def test_a_size_that_cannot_be_is_an_error(options: dict[str, Any], message: str, make: Any) -> None:
    with pytest.raises(DataError, match=message):
        make(**options)


def test_pairs_are_encoded_as_pairs(backbone: str, tmp_path: Path) -> None:
    lines = "index\tsentence1\tsentence2\tlabel\n" + "0\tthe film was good\tit was great\tentailment\n" * 2
    for split in ("train", "validation"):
        (tmp_path / f"{split}.tsv").write_text(lines)
    data = Glue(backbone, task="rte", data_dir=tmp_path, batch_size=2)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch["token_type_ids"][0].tolist() == [0] * 6 + [1] * 4
    assert batch["labels"].tolist() == [0, 0]


@pytest.mark.parametrize(("kind", "different"), [("per_example", True), ("fixed", False)])
def test_demonstrations_are_drawn_anew_or_once(kind: str, different: bool, prompted: Any) -> None:
    data = prompted(demonstrations=3, demonstration_set=kind)
    contexts = {example.prompt.rpartition("\n\n")[0] for example in data._examples("validation")[:10]}
    assert (len(contexts) > 1) == different
    assert all(context.count("\n\n") == 2 for context in contexts)


def test_too_many_demonstrations_are_an_error(prompted: Any) -> None:
    with pytest.raises(DataError, match="100 demonstrations asked for, but 48 training examples"):
        prompted(demonstrations=100)


def test_demonstrations_belong_to_prompts(backbone: str, sst2_dir: str) -> None:
    with pytest.raises(DataError, match="belong to prompts, and sst2 is read without one"):
        Glue(backbone, task="sst2", data_dir=sst2_dir, demonstrations=2)


def test_an_evaluation_subset_is_the_prefix_of_a_permutation(prompted: Any) -> None:
    ids = []
    for size in (5, 12):
        (loader,) = prompted(eval_size=size).val_dataloader()
        ids.append({i for batch in loader for i in batch["id"].tolist()})
    assert len(ids[0]) == 5
    assert ids[0] < ids[1]


def test_fewer_than_no_demonstrations_are_an_error(prompted: Any) -> None:
    with pytest.raises(DataError, match="demonstrations is -1: it must be at least 0"):
        prompted(demonstrations=-1)
