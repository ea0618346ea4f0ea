"""Random subsets."""

import numpy as np
import pytest

from beft_lightning.data import GLUE_TASKS
from beft_lightning.data.subsets import (
    draw,
    draw_demonstrations,
    draw_sources,
    draw_stratified,
    draw_training,
    evaluation_size,
    training_size,
)
from beft_lightning.errors import DataError


def test_a_smaller_draw_is_the_beginning_of_a_larger_one() -> None:
    few, many = (draw(20, count, np.random.RandomState(3)) for count in (5, 20))
    assert many[:5] == few
    assert sorted(many) == list(range(20))
    assert many == np.random.RandomState(3).permutation(20).tolist()


def test_sources_are_drawn_whole_until_there_are_enough_examples() -> None:
    sources = [letter for letter in "abcdefgh" for _ in range(4)]
    for size, count in ((1, 1), (4, 1), (5, 2), (32, 8), (99, 8)):
        assert len(draw_sources(sources, size, np.random.RandomState(0))) == count
    few, many = (draw_sources(sources, size, np.random.RandomState(0)) for size in (8, 16))
    assert few < many
    assert draw_sources(sources, 8, np.random.RandomState(1)) != few


def test_the_dev_set_follows_the_training_set_in_the_permutation() -> None:
    training, dev = draw_training(20, [], 5, lambda available: available - 7, np.random.RandomState(3))
    assert training + dev == np.random.RandomState(3).permutation(20)[:13].tolist()
    assert (len(training), len(dev)) == (8, 5)


def test_training_and_dev_set_share_no_source() -> None:
    sources = [letter for letter in "abcde" for _ in range(3)]
    training, dev = draw_training(15, sources, 4, lambda available: available, np.random.RandomState(0))
    assert not {sources[i] for i in training} & {sources[i] for i in dev}
    assert sorted(training + dev) == list(range(15))


def test_demonstrations_are_the_same_or_drawn_for_each_example() -> None:
    fixed = draw_demonstrations(3, 9, 4, per_example=False, random=np.random.RandomState(0))
    assert fixed[0] == fixed[1] == fixed[2] == draw(9, 4, np.random.RandomState(0))
    drawn = draw_demonstrations(3, 9, 4, per_example=True, random=np.random.RandomState(0))
    assert drawn[0] != drawn[1]
    with pytest.raises(DataError, match="4 demonstrations asked for, but 3 training examples"):
        draw_demonstrations(3, 3, 4, per_example=True, random=np.random.RandomState(0))


def test_sizes() -> None:
    sst2 = GLUE_TASKS["sst2"]
    assert training_size(sst2, "low", 2000, 8) == 1000
    assert training_size(sst2, "all", 2000, 8) == 2000
    assert training_size(sst2, 16, 2000, 8) == 16
    assert (evaluation_size("all", 9), evaluation_size(5, 9), evaluation_size(10, 9)) == (9, 5, 9)


def test_every_beginning_of_a_stratified_draw_is_proportional() -> None:
    strata = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    before: set[int] = set()
    for size in range(1, 100):
        drawn = draw_stratified(strata, size, np.random.RandomState(0))
        assert len(set(drawn)) == size
        assert before < set(drawn)
        before = set(drawn)
        for name in "abc":
            assert sum(strata[i] == name for i in drawn) == pytest.approx(size * strata.count(name) / 100, abs=1)
    assert draw_stratified(strata, 10, np.random.RandomState(1)) != draw_stratified(
        strata, 10, np.random.RandomState(0)
    )
