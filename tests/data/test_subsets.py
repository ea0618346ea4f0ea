"""Random subsets."""

import numpy as np

from beft_lightning.data.subsets import draw, draw_sources


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
