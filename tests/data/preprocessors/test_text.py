"""Bare texts as token ids."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from beft_lightning.data import GLUE_TASKS
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.text import TextPreprocessor
from beft_lightning.models import load_tokenizer

SST2, STSB = GLUE_TASKS["sst2"], GLUE_TASKS["stsb"]


@pytest.fixture(scope="module")
def tokenizer(backbone: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(backbone)


def test_scores_stay_numbers(tokenizer: PreTrainedTokenizerBase) -> None:
    preprocessor = TextPreprocessor(STSB, tokenizer, EncodingOptions(16))
    rows = [{"sentence1": "the film", "sentence2": "a plot", "label": label, "id": 7} for label in (2.5, 0.0)]
    batch = preprocessor.collate_training(preprocessor.encode(rows))
    assert batch["labels"].tolist() == [2.5, 0.0]
    assert batch["id"].tolist() == [7, 7]


@pytest.mark.parametrize(("padding", "columns"), [("longest", 5), ("max_length", 16)])
def test_an_example_costs_the_tokens_it_is_padded_to(
    padding: Any, columns: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    preprocessor = TextPreprocessor(SST2, tokenizer, EncodingOptions(16, padding))
    (features,) = preprocessor.encode([{"sentence": "the film was", "label": 1, "id": 0}])
    assert preprocessor.length(features) == preprocessor.positions(features) == columns
    assert preprocessor.collate_training([features])["input_ids"].shape == (1, columns)
