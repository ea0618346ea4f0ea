"""Cutting batches into examples."""

from typing import Any

import pytest
import torch

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.batches import examples


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
        (torch.tensor(1.0), r"tensors of first dimensions \[\]"),
    ],
)
def test_what_cannot_be_cut_is_an_error_with_the_remedy(batch: Any, message: str) -> None:
    with pytest.raises(ScoringError, match=message + ".*Use approach 'fisher'.*batch size of 1"):
        list(examples(batch))
