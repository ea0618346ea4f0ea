"""A context before each choice."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.benchmarks.super_glue import SUPER_GLUE_TASKS
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.multiple_choice import MultipleChoicePreprocessor
from beft_lightning.models import load_tokenizer

COPA = SUPER_GLUE_TASKS["copa"]
ROW = {"premise": "the film was good ", "question": "cause", "choice1": "it was", "choice2": "very very bad"}


@pytest.fixture(scope="module")
def tokenizer(backbone: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(backbone)


def test_every_choice_stands_behind_the_context(tokenizer: PreTrainedTokenizerBase) -> None:
    features = MultipleChoicePreprocessor(COPA, tokenizer, EncodingOptions(32)).encode([{**ROW, "label": 1, "id": 4}])
    (feature,) = features
    context = tokenizer("the film was good cause")["input_ids"]
    for ids, choice in zip(feature["input_ids"], ("it was", "very very bad"), strict=True):
        assert ids[: len(context)] == context
        assert tokenizer.decode(ids[len(context) :], skip_special_tokens=True) == choice
    assert (feature["labels"], feature["id"]) == (1, 4)


def test_a_batch_of_choices_has_a_row_for_each(tokenizer: PreTrainedTokenizerBase) -> None:
    preprocessor = MultipleChoicePreprocessor(COPA, tokenizer, EncodingOptions(32))
    features = preprocessor.encode([{**ROW, "label": label, "id": label} for label in (0, 1, 1)])
    batch = preprocessor.collate_training(features)
    assert batch["input_ids"].shape[:2] == (3, 2)
    assert batch["labels"].tolist() == [0, 1, 1]
    assert batch["id"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(("padding", "length"), [("longest", None), ("max_length", 24)])
def test_what_an_example_costs_is_what_it_is_padded_to(
    padding: Any, length: int | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    preprocessor = MultipleChoicePreprocessor(COPA, tokenizer, EncodingOptions(24, padding))
    (feature,) = preprocessor.encode([{**ROW, "label": 0, "id": 0}])
    columns = preprocessor.collate_training([feature])["input_ids"].shape[-1]
    assert preprocessor.length(feature) == columns == (length or max(map(len, feature["input_ids"])))
