"""Where an option begins, and what options share."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.packed_options import encode_options, encode_prompt
from beft_lightning.errors import DataError
from beft_lightning.models import load_tokenizer


@pytest.fixture(scope="module")
def words(decoder: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(decoder)


@pytest.fixture(scope="module")
def real(short_smollm2: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(short_smollm2)


def test_options_share_the_prompt_and_its_special_token(words: PreTrainedTokenizerBase) -> None:
    encoded = encode_options(words, "the film was", [" good", " very bad"], 32)
    assert words.decode(list(encoded.prompt)) == "[CLS] the film was"
    assert [words.decode(list(own)) for own in encoded.own] == ["good", "very bad"]
    assert encoded.starts == (4, 4)
    assert encoded.length == 4 + 0 + 1


def test_words_that_all_options_begin_with_are_shared_and_scored(words: PreTrainedTokenizerBase) -> None:
    encoded = encode_options(words, "the film", [" was very good", " was very very bad", " was very"], 32)
    assert words.decode(list(encoded.shared)) == "[CLS] the film was"
    assert words.decode(list(encoded.prompt)) == "[CLS] the film"
    assert [words.decode(list(own)) for own in encoded.own] == ["very good", "very very bad", "very"]
    assert encoded.starts == (3, 3, 3)
    assert words.decode(list(encoded.only(1).row(0))) == "[CLS] the film was very very bad"


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("a fine film It was", [" terrible", " great"]),
        ('It rains.\nDoes this mean that "it is wet" is true? Yes or No?\n', ["Yes", "No"]),
        ("The man fell because", [" he tripped.", " I pushed him."]),
    ],
)
def test_tokens_are_those_of_the_whole_text(real: PreTrainedTokenizerBase, prompt: str, options: list[str]) -> None:
    encoded = encode_options(real, prompt, options, 64)
    for number, (option, start) in enumerate(zip(options, encoded.starts, strict=True)):
        row = encoded.row(number)
        assert list(row) == real(prompt + option)["input_ids"]
        assert real.decode(list(row[start:])) == option


def test_a_token_across_the_boundary_belongs_to_the_option(real: PreTrainedTokenizerBase) -> None:
    """The prompt's last letters merge with the first option's, so less is shared, and nothing is scored twice."""
    encoded = encode_options(real, "The film was gre", ["at", " xyz"], 64)
    assert real.decode(list(encoded.prompt)) == "The film was"
    assert encoded.starts[0] == len(encoded.shared)
    assert real.decode(list(encoded.own[0])) == " great"
    assert encoded.starts[1] > len(encoded.shared)
    assert real.decode(list(encoded.row(1)[encoded.starts[1] :])) == " xyz"


def test_an_empty_prompt_is_the_first_special_token(real: PreTrainedTokenizerBase) -> None:
    assert encode_options(real, "", ["Yes", "No"], 8).prompt == (real.bos_token_id,)


def test_a_long_prompt_loses_its_beginning_but_keeps_the_special_token(words: PreTrainedTokenizerBase) -> None:
    encoded = encode_options(words, "the film was very very good and", [" it", " not bad"], 6)
    assert words.decode(list(encoded.prompt)) == "[CLS] very good and"
    assert encoded.truncated == 4


@pytest.mark.parametrize(
    ("options", "length", "message"),
    [
        ([], 8, "has no options"),
        ([" good", ""], 8, "option '' of the prompt 'the film' has no token of its own"),
        ([" very very very good"], 4, "leaves no room for its prompt within 4 tokens: raise max_length"),
    ],
)
def test_what_cannot_be_scored_is_an_error(
    options: list[str], length: int, message: str, words: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(DataError, match=message):
        encode_options(words, "the film", options, length)


def test_a_tokenizer_without_any_first_token_is_an_error(words: PreTrainedTokenizerBase) -> None:
    class Bare:
        bos_token_id = eos_token_id = None
        all_special_ids = ()

        def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
            return {"input_ids": [[1] for _ in texts], "offset_mapping": [[(0, len(text))] for text in texts]}

    with pytest.raises(DataError, match="needs a tokenizer with a bos or eos token"):
        encode_options(Bare(), "", ["a", "b"], 8)  # type: ignore[arg-type]


def test_a_prompt_alone_is_that_before_an_option(real: PreTrainedTokenizerBase, words: PreTrainedTokenizerBase) -> None:
    for prompt in ("A fine film. It was", "Title:\nAnswer:", ""):
        assert encode_prompt(real, prompt, 64).prompt == encode_options(real, prompt, [" good"], 64).prompt
    # A special token at its beginning is kept.
    whole, cut = (encode_prompt(words, "the film was", length) for length in (64, 3))
    assert cut.prompt == (whole.prompt[0], *whole.prompt[-2:])
    assert (whole.truncated, cut.truncated) == (0, 1)
