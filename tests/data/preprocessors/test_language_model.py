"""What all preprocessors for causal language models share: checks, messages and padding."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.free_text_task import FreeText, FreeTextTask
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.language_model import LanguageModelPreprocessor
from beft_lightning.errors import DataError
from tests.chats import chat_tokenizer


class Letters(LanguageModelPreprocessor[FreeTextTask]):
    """Encodes letters as their numbers; only small ones can be."""

    cut = ("words", "tail")

    def _encode(self, example: FreeText) -> dict[str, Any]:
        if not example.text.islower():
            raise DataError(f"{example.text!r} has capitals.")
        ids = [ord(letter) for letter in example.text]
        lost = max(len(ids) - self.max_length, 0)
        return {"id": example.id, "encoded": SimpleNamespace(ids=ids[: self.max_length], truncated=lost)}


def make(tokenizer: PreTrainedTokenizerBase | None = None) -> Letters:
    task = FreeTextTask(name="books", column="page")
    return Letters(task, tokenizer or chat_tokenizer(), EncodingOptions(4))


def test_the_message_says_how_many_examples_were_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.preprocessors.language_model.rank_zero_info", messages.append)
    preprocessor = make()
    assert [f["id"] for f in preprocessor.encode([FreeText("abcd", id=4), FreeText("a", id=2)])] == [4, 2]
    assert messages == []
    preprocessor.encode([FreeText("abcde"), FreeText("a"), FreeText("abcdef")])
    (message,) = messages
    assert message.startswith("2 of 3 words of books are longer than 4 tokens and lost their tail; raise max_length")


def test_all_examples_that_cannot_be_encoded_are_counted_and_the_first_is_named() -> None:
    examples = [FreeText("a"), FreeText("B", where="b.txt row 2"), FreeText("c"), FreeText("D", where="b.txt row 4")]
    with pytest.raises(DataError, match="^b.txt row 2: 'B' has capitals. So it is in 2 of 4 examples.$"):
        make().encode(examples)
    with pytest.raises(DataError, match="^'B' has capitals. So it is in 1 of 1 examples.$"):
        make().encode([FreeText("B")])


def test_prompts_are_padded_on_the_left() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.pad_token_id = 2
    batch = make(tokenizer)._pad_prompts([[5, 6, 7], [8]])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [2, 2, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_end_of_text_pads_where_there_is_no_other_token() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.pad_token = None
    assert make(tokenizer).pad_token == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="neither a pad nor an eos token"):
        make(tokenizer)


def test_a_slow_tokenizer() -> None:
    slow: Any = SimpleNamespace(is_fast=False)
    with pytest.raises(DataError, match="SimpleNamespace cannot tell where an option begins: use a fast tokenizer"):
        make(slow)
