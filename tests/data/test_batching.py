"""The order of batches."""

import torch

from beft_lightning.data.batching import EpochLengthGroupedSampler

LENGTHS = torch.randint(3, 40, (300,), generator=torch.Generator().manual_seed(0)).tolist()


def order(epoch: int, seed: int = 0) -> list[int]:
    sampler = EpochLengthGroupedSampler(8, LENGTHS, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_example_comes_once() -> None:
    assert sorted(order(3)) == list(range(len(LENGTHS)))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    sampler = EpochLengthGroupedSampler(8, LENGTHS, 0)
    assert list(sampler) == order(0)
    sampler.set_epoch(2)
    assert list(sampler) == order(2)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=1)


def test_batches_hold_examples_of_similar_length() -> None:
    def padding(indices: list[int]) -> int:
        batches = [[LENGTHS[i] for i in indices[at : at + 8]] for at in range(0, len(indices), 8)]
        return sum(len(batch) * max(batch) - sum(batch) for batch in batches)

    assert padding(order(0)) < 0.3 * padding(list(range(len(LENGTHS))))
