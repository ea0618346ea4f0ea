"""Paired differences of held-out losses."""

import math
from statistics import stdev

import pytest
import torch

from beft_lightning.scoring.race.gap import gap


def test_the_difficulty_of_batches_falls_out() -> None:
    generator = torch.Generator().manual_seed(0)
    difficulty = torch.rand(16, generator=generator) * 10
    noise = torch.rand(16, generator=generator) * 0.02
    worse, better = (difficulty + 0.1 + noise).tolist(), difficulty.tolist()
    found = gap(worse, better)
    assert found.difference == pytest.approx(0.11, abs=0.01)
    assert found.spread == pytest.approx(2 * stdev(a - b for a, b in zip(worse, better, strict=True)) / 4)
    assert not found.is_tie
    assert gap(better, worse).is_tie
    assert gap(better, worse).needed is None


def test_a_tie_says_how_many_held_out_batches_would_tell() -> None:
    found = gap([1.0, 0.0, 1.0, 0.0, 0.2, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    assert found.is_tie
    assert found.needed is not None
    # The spread falls with the root of the number of batches, and equals the difference at that number.
    assert found.spread * math.sqrt(6 / found.needed) <= found.difference
    assert found.spread * math.sqrt(6 / (found.needed - 1)) > found.difference


def test_equal_losses_are_a_tie() -> None:
    assert gap([1.0, 2.0], [1.0, 2.0]).is_tie


def test_an_entrant_that_diverged_is_behind_by_any_measure() -> None:
    found = gap([math.inf, math.inf], [1.0, 2.0])
    assert not found.is_tie
    assert found.difference == math.inf
