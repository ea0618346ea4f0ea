"""Free text as batches."""

from typing import Any

import pytest

from beft_lightning.data.free_text_task import FreeText, FreeTextTask
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.free_text import FreeTextPreprocessor
from beft_lightning.errors import DataError
from tests.chats import chat_tokenizer

TOKENIZER = chat_tokenizer()
TASK = FreeTextTask(name="books", column="page")
TEXTS = [FreeText("the film was", id=3), FreeText("a", id=5)]


def make(max_length: int = 64) -> FreeTextPreprocessor:
    return FreeTextPreprocessor(TASK, TOKENIZER, EncodingOptions(max_length))


def words(ids: Any) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=False))


def test_every_token_that_something_precedes_is_learnt_and_the_end_of_the_text() -> None:
    preprocessor = make()
    batch = preprocessor.collate_evaluation(preprocessor.encode(TEXTS))
    assert batch["id"].tolist() == [3, 5]
    learnt = [words(batch["target_token"][batch["target_row"] == row]) for row in range(2)]
    assert learnt == [" film was[EOS]", "[EOS]"]


def test_a_long_text_loses_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.preprocessors.language_model.rank_zero_info", messages.append)
    cut, whole = make(4).encode(TEXTS)
    assert words(cut["encoded"].ids) == "the film "
    assert words(whole["encoded"].ids) == "a[EOS]"
    assert make().length(cut) == make().positions(cut) == 4
    assert "1 of 2 texts of books are longer than 4 tokens and lost their end" in messages[0]


def test_a_text_of_one_token_has_nothing_to_learn() -> None:
    with pytest.raises(DataError, match=r"a.txt row 4: .* fewer than two tokens within 1: .* 1 of 1 examples"):
        make(1).encode([FreeText("the film", id=0, where="a.txt row 4")])
    with pytest.raises(DataError, match="fewer than two tokens within 64"):
        make().encode([FreeText("", id=0)])
