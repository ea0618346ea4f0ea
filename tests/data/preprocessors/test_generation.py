"""Prompts with an answer to generate."""

import pytest
from transformers import PreTrainedTokenizerBase

from beft_lightning.data import PROMPT_TASKS, Prompted
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.generation import GenerationPreprocessor
from beft_lightning.models import load_tokenizer

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
