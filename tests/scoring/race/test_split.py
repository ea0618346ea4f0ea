"""The batches of a race."""

import pytest
import torch

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.race.split import split_batches

BATCHES = [{"x": torch.tensor([number])} for number in range(10)]


def numbers(batches: list[dict[str, torch.Tensor]]) -> list[int]:
    return [int(batch["x"]) for batch in batches]


def test_no_batch_is_trained_on_and_judged_by() -> None:
    split = split_batches(BATCHES, held_out=3, seed=0)
    assert len(split.held_out) == 3
    assert sorted(numbers(split.training) + numbers(split.held_out)) == [*range(10)]
    again, other = (numbers(split_batches(BATCHES, held_out=3, seed=seed).held_out) for seed in (0, 1))
    assert again == numbers(split.held_out) != other


def test_at_most_half_are_held_out() -> None:
    assert len(split_batches(BATCHES, held_out=16, seed=0).held_out) == 5
    with pytest.raises(ScoringError, match="an epoch has 3"):
        split_batches(BATCHES[:3], held_out=1, seed=0)


def test_each_time_through_has_all_batches_in_another_order() -> None:
    split = split_batches(BATCHES, held_out=3, seed=0)
    first, second = (numbers([split.training_batch(7 * time + i) for i in range(7)]) for time in (0, 1))
    assert sorted(first) == sorted(second) == sorted(numbers(split.training))
    assert first != second


def test_a_training_step_may_change_its_batch() -> None:
    split = split_batches(BATCHES, held_out=3, seed=0)
    before = int(split.training_batch(0)["x"])
    split.training_batch(0)["x"] += 100
    assert int(split.training_batch(0)["x"]) == before
