"""Free text as batches."""

from dataclasses import replace
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


def make(max_length: int = 64, packing: bool = False) -> FreeTextPreprocessor:
    return FreeTextPreprocessor(replace(TASK, packing=packing), TOKENIZER, EncodingOptions(max_length))


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
    assert words(cut["encoded"].row(0)) == "the film "
    assert words(whole["encoded"].row(0)) == "a[EOS]"
    assert (make().length(cut), make(4).positions(cut)) == (3, 4)
    assert "1 of 2 texts of books are longer than 4 tokens and lost their end" in messages[0]


def test_packed_texts_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    for module in ("language_model", "free_text"):
        monkeypatch.setattr(f"beft_lightning.data.preprocessors.{module}.rank_zero_info", messages.append)
    preprocessor = make(4, packing=True)
    features = preprocessor.encode(TEXTS)
    first, second = preprocessor.rows(features)
    # The two texts share no token: "the film was[EOS]" runs five, the first four of them in the first row.
    assert words(first["encoded"].row(0)) == "the film was"
    assert [words(piece) for piece in second["encoded"].own] == ["was[EOS]", "a[EOS]"]
    assert messages[1] == "2 texts of books are packed into 2 rows of up to 4 tokens."
    assert "1 of 2 texts of books are longer than 4 tokens: they go on in the next row" in messages[0]
    assert make(4).rows(features) == features


def test_a_text_of_one_token_has_nothing_to_learn() -> None:
    with pytest.raises(DataError, match=r"a.txt row 4: .* fewer than two tokens within 1: .* 1 of 1 examples"):
        make(1).encode([FreeText("the film", id=0, where="a.txt row 4")])
    with pytest.raises(DataError, match="fewer than two tokens within 64"):
        make().encode([FreeText("", id=0)])
