"""Options of generated answers."""

from typing import Any

import pytest

from beft_lightning.data.generation import Generation, end_of_text
from beft_lightning.errors import DataError
from tests.chats import chat_tokenizer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be at least 1"),
        ({"stop": "word"}, "stop 'word' is unknown; choose one of: line, end_of_text"),
        ({"options": {"beams": 4}}, "'beams' is no option of transformers' GenerationConfig"),
        ({"options": {"eos_token_id": 4}}, "'eos_token_id' cannot be set: set stop"),
        ({"options": {"num_return_sequences": 4}}, "each prompt has one answer"),
        ({"options": {"stop_strings": ["a"]}}, "'stop_strings' cannot be set: set stop"),
        ({"options": {"num_beams": "four"}}, "num_beams is 'four': it must be a whole number from 1 on"),
        ({"options": {"num_beams": 0}}, "num_beams is 0: it must be a whole number from 1 on"),
        (
            {"options": {"num_beams": 2, "early_stopping": 4}},
            "generate: .*early_stopping.* must be a boolean or 'never'",
        ),
    ],
)
def test_an_option_that_is_not_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Generation(**options)


def test_options_of_transformers_are_taken() -> None:
    options = {"num_beams": 4, "repetition_penalty": 1.1}
    assert Generation(options=options).to_dict() == {"max_new_tokens": 50, "stop": "line", "options": options}


def test_answers_count_towards_the_length() -> None:
    assert Generation(6).room(16) == 10
    with pytest.raises(DataError, match="max_new_tokens 16 leaves no room for a prompt within max_length 16"):
        Generation(16).room(16)


def test_a_tokenizer_without_an_end_of_text() -> None:
    tokenizer = chat_tokenizer()
    assert end_of_text(tokenizer) == 3
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no eos token"):
        end_of_text(tokenizer)
