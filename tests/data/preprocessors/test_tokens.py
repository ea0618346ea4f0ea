"""Lists of words, and which token a word's tag stands at."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from beft_lightning.data import Task
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.tokens import NO_TAG, NO_WORD, TokenPreprocessor, first_pieces
from beft_lightning.errors import DataError
from beft_lightning.models import load_tokenizer

TASK = Task(name="tags", kind="token_classification", text=("words",), labels=("B-X", "I-X", "O"), metrics=())


@pytest.fixture(scope="module")
def pieces() -> PreTrainedTokenizerBase:
    """A tokenizer that splits words into pieces of one or two letters, and knows no digits."""
    vocabulary = {name: i for i, name in enumerate(["[PAD]", "[UNK]", "ab", "##c", "##ab", "c"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace("0", "")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def encode(tokenizer: Any, rows: list[dict[str, Any]], length: int = 16) -> tuple[Any, Any]:
    preprocessor = TokenPreprocessor(TASK, tokenizer, EncodingOptions(length))
    return preprocessor, preprocessor.encode([{**row, "id": i} for i, row in enumerate(rows)])


def test_the_first_piece_of_a_word_carries_its_tag(pieces: PreTrainedTokenizerBase) -> None:
    _, (feature,) = encode(pieces, [{"words": ["abcab", "0", "c", "ababc"], "label": [0, 1, 2, 1]}])
    assert pieces.convert_ids_to_tokens(feature["input_ids"]) == ["ab", "##c", "##ab", "c", "ab", "##ab", "##c"]
    assert feature["words"] == [0, NO_WORD, NO_WORD, 2, 3, NO_WORD, NO_WORD]
    assert feature["labels"] == [0, NO_TAG, NO_TAG, 2, 1, NO_TAG, NO_TAG]
    assert feature["word_count"] == 4


def test_truncation_keeps_words_and_tags_together(
    pieces: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.preprocessors.tokens.rank_zero_info", messages.append)
    rows: list[dict[str, Any]] = [{"words": ["abc", "c", "c"], "label": [0, 1, 2]}, {"words": ["c"], "label": [2]}]
    _, (feature, _) = encode(pieces, rows, length=3)
    assert (feature["words"], feature["labels"]) == ([0, NO_WORD, 1], [0, NO_TAG, 1])
    assert "1 of 2 rows of tags are longer than 3 tokens" in messages[0]


def test_special_tokens_and_padding_have_no_tag(backbone: str) -> None:
    rows: list[dict[str, Any]] = [{"words": ["a", "film"], "label": [0, 1]}, {"words": ["it"], "label": [2]}]
    preprocessor, features = encode(load_tokenizer(backbone), rows)
    batch = preprocessor.collate_training(features)
    assert batch["labels"].tolist() == [[NO_TAG, 0, 1, NO_TAG], [NO_TAG, 2, NO_TAG, NO_TAG]]
    assert batch["words"].tolist() == [[NO_WORD, 0, 1, NO_WORD], [NO_WORD, 0, NO_WORD, NO_WORD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (batch["word_count"].tolist(), batch["id"].tolist()) == ([2, 1], [0, 1])


def test_padding_on_the_left(backbone: str) -> None:
    tokenizer = load_tokenizer(backbone)
    tokenizer.padding_side = "left"
    preprocessor, features = encode(tokenizer, [{"words": ["a", "film"]}, {"words": ["it"]}])
    batch = preprocessor.collate_evaluation(features)
    assert batch["words"].tolist() == [[NO_WORD, 0, 1, NO_WORD], [NO_WORD, NO_WORD, 0, NO_WORD]]
    assert "labels" not in batch


def test_a_row_without_any_token(pieces: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"tags: row 2: .*\['0'\]: the tokenizer has no token for any of them"):
        encode(pieces, [{"words": ["c"], "label": [0]}, {"words": ["0"], "label": [0]}])


def test_a_length_without_room_for_a_word(backbone: str) -> None:
    with pytest.raises(DataError, match="tags: row 1: .* max_length 2 leaves no room for a word: raise it"):
        encode(load_tokenizer(backbone), [{"words": ["a", "film"], "label": [0, 1]}], length=2)


def test_a_token_may_begin_with_the_space_before_its_word() -> None:
    assert first_pieces(["ab", "c"], [(0, 0), (0, 1), (1, 2), (2, 4), (0, 0)]) == [NO_WORD, 0, NO_WORD, 1, NO_WORD]


def test_words_are_tokenized_as_transformers_does_with_split_words(minilm: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(minilm)
    words = ["Ada", "Lovelace-Byron", "wrote", "Über-programs", ",", "didn't", "she", "?"]
    _, (feature,) = encode(tokenizer, [{"words": words}])
    split = tokenizer(words, is_split_into_words=True, truncation=True, max_length=16)
    assert feature["input_ids"] == split["input_ids"]
    ids = split.word_ids()
    expected = [NO_WORD if word is None or word in ids[:i] else word for i, word in enumerate(ids)]
    assert feature["words"] == expected
