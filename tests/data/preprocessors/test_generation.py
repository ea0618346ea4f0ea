"""Prompts with an answer to generate."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from beft_lightning.data import PROMPT_TASKS, Prompted
from beft_lightning.data.generation import Generation
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.generation import GenerationPreprocessor
from beft_lightning.errors import DataError
from beft_lightning.models import load_tokenizer
from tests.chats import chat_tokenizer

SQUAD = PROMPT_TASKS["squad"]
MAX_NEW_TOKENS = SQUAD.generation.max_new_tokens
EXAMPLES = [Prompted("the film was", (" good",), id=0), Prompted("a", (" plot",), id=1)]


@pytest.mark.parametrize("pad_token", ["[PAD]", None])
def test_prompts_are_padded_on_the_left(pad_token: str | None, decoder: str) -> None:
    """GPT-2's tokenizer, for one, has no token to pad with: the end of text serves."""
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(decoder)
    tokenizer.pad_token = pad_token
    filling = tokenizer.eos_token_id if pad_token is None else tokenizer.pad_token_id
    preprocessor = GenerationPreprocessor(SQUAD, tokenizer, EncodingOptions(64))
    batch = preprocessor.collate_evaluation(preprocessor.encode(EXAMPLES))
    long, short = (tokenizer(example.prompt)["input_ids"] for example in EXAMPLES)
    assert batch["input_ids"].tolist() == [long, [filling, filling, *short]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]


def test_the_answer_has_its_room(decoder: str) -> None:
    preprocessor = GenerationPreprocessor(SQUAD, load_tokenizer(decoder), EncodingOptions(MAX_NEW_TOKENS + 4))
    (features, _) = preprocessor.encode(EXAMPLES)
    assert features["encoded"].truncated == 1  # of the special token, three words and the answer
    assert preprocessor.positions(features) <= MAX_NEW_TOKENS + 4


def test_the_answer_to_learn_needs_positions_too() -> None:
    task = replace(SQUAD, generation=Generation(3, "end_of_text"))
    preprocessor = GenerationPreprocessor(task, chat_tokenizer(), EncodingOptions(64))
    examples = [Prompted("a", (" good" * count,), id=0) for count in (1, 9)]
    assert [preprocessor.positions(features) for features in preprocessor.encode(examples)] == [1 + 3, 1 + 18]


def test_the_end_of_the_text_is_learnt_behind_an_answer_of_several_lines() -> None:
    tokenizer = chat_tokenizer()
    task = replace(SQUAD, generation=Generation(3, "end_of_text"))
    preprocessor = GenerationPreprocessor(task, tokenizer, EncodingOptions(64))
    batch = preprocessor.collate_training(preprocessor.encode([Prompted("the film", (" good\nplot",), id=0)]))
    assert tokenizer.decode(batch["target_token"], skip_special_tokens=False) == " good\nplot[EOS]"


@pytest.mark.parametrize("answer", [" good", " good\n"])
def test_the_line_break_is_learnt_where_an_answer_ends_with_its_line(answer: str) -> None:
    tokenizer = chat_tokenizer()
    preprocessor = GenerationPreprocessor(SQUAD, tokenizer, EncodingOptions(64))
    batch = preprocessor.collate_training(preprocessor.encode([Prompted("the film", (answer,), id=0)]))
    assert tokenizer.decode(batch["target_token"]) == " good\n"


def test_a_prompt_without_an_answer_is_that_before_one() -> None:
    preprocessor = GenerationPreprocessor(SQUAD, chat_tokenizer(), EncodingOptions(64))
    known, unknown = preprocessor.encode([Prompted("the film was", answer, id=0) for answer in ((" a",), ())])
    assert unknown["encoded"].prompt == known["encoded"].prompt
    assert "learnt" in preprocessor.collate_evaluation([known])
    assert "learnt" not in preprocessor.collate_evaluation([unknown])


def test_an_answer_that_does_not_fit_is_an_error_with_its_place() -> None:
    preprocessor = GenerationPreprocessor(SQUAD, chat_tokenizer(), EncodingOptions(55))
    examples = [Prompted("a", (" good",), where="q.csv row 1"), Prompted("a", (" good" * 5,), where="q.csv row 2")]
    with pytest.raises(DataError, match=r"q.csv row 2: option .* leaves no room .* 1 of 2 examples"):
        preprocessor.encode(examples)
