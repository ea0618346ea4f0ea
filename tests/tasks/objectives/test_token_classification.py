"""A tag for each word."""

import math

import pytest
import torch

from beft_lightning.data import Task
from beft_lightning.data.preprocessors.tokens import NO_TAG, NO_WORD
from beft_lightning.tasks.objectives.token_classification import TokenClassificationObjective

OBJECTIVE = TokenClassificationObjective(
    Task(name="made up", kind="token_classification", text=("words",), labels=("B-X", "O"), metrics=())
)


def test_only_first_pieces_count_in_the_loss() -> None:
    logits = torch.tensor([[[9.0, 0.0], [0.0, math.log(3.0)], [0.0, 0.0]], [[5.0, 1.0], [0.0, 0.0], [7.0, 0.0]]])
    labels = torch.tensor([[NO_TAG, 1, 0], [NO_TAG, NO_TAG, NO_TAG]])
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    assert OBJECTIVE.loss_of(logits, labels).item() == pytest.approx(expected)


def test_tags_belong_to_words_and_words_that_were_cut_off_have_none() -> None:
    predictions = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 1]])
    words = torch.tensor([[NO_WORD, 0, 2, NO_WORD], [NO_WORD, 0, NO_WORD, NO_WORD]])
    decoded = OBJECTIVE.decode(predictions, {"words": words, "word_count": torch.tensor([4, 1])})
    assert decoded == [["B-X", None, "O", None], ["B-X"]]
