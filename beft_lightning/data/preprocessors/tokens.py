"""Lists of words for encoders, with a tag for each word."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.preprocessors.preprocessor import EncodingOptions
from beft_lightning.data.preprocessors.text import TextPreprocessor
from beft_lightning.data.sources import Row
from beft_lightning.data.task import Task
from beft_lightning.errors import DataError

#: The label of tokens that are not the first piece of a word. PyTorch's losses ignore it.
NO_TAG = -100
#: Stands for the word of such tokens.
NO_WORD = -1


class TokenPreprocessor(TextPreprocessor):
    """Encodes lists of words; the first piece of each word carries the word's tag.

    Raises:
        DataError: If the tokenizer cannot tell where a token stands in the text.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        if not tokenizer.is_fast:
            raise DataError(f"{type(tokenizer).__name__} cannot tell which word a token is of: use a fast tokenizer.")
        super().__init__(task, tokenizer, options)

    def encode(self, examples: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the features of rows, and log how many lost their last words.

        Returns:
            Of each row: token ids; ``words``, for each token the number of the word that it is the first piece of, or
            ``NO_WORD``; ``word_count``; ``id``; where it has a label, ``labels``, for each token the tag id of that
            word, or ``NO_TAG``.
        """
        # As one text, as in pretraining: some tokenizers take the space before a word for a part of it.
        texts = [" ".join(row[self.task.text[0]]) for row in examples]
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        features = [
            self._feature(row, {n: values[i] for n, values in encoded.items()}) for i, row in enumerate(examples)
        ]
        if cut := sum(self._is_cut(feature) for feature in features):
            rank_zero_info(
                f"{cut:,} of {len(features):,} rows of {self.task.name} are longer than {self.max_length} tokens and "
                "lost their last words, which have no tag; raise max_length if the model has the positions."
            )
        return features

    def _feature(self, row: Row, encoded: dict[str, Any]) -> dict[str, Any]:
        """Return the features of a row, given its tokens with their offsets."""
        words = row[self.task.text[0]]
        first = first_pieces(words, encoded.pop("offset_mapping"))
        if max(first, default=NO_WORD) == NO_WORD:
            # The special tokens alone, or those of the words that were not cut off.
            cause = (
                f"max_length {self.max_length} leaves no room for a word: raise it"
                if len(encoded["input_ids"]) >= self.max_length
                else "the tokenizer has no token for any of them: remove the row"
            )
            raise DataError(f"{self.task.name}: row {row['id'] + 1}: no token for the words {words!r}: {cause}.")
        tags = row.get("label")
        labels = {} if tags is None else {"labels": [NO_TAG if word == NO_WORD else tags[word] for word in first]}
        return {**encoded, "words": first, "word_count": len(words), **labels, "id": row["id"]}

    def _is_cut(self, feature: dict[str, Any]) -> bool:
        """Return whether the last word has no token because there are too many."""
        return len(feature["input_ids"]) == self.max_length and max(feature["words"]) < feature["word_count"] - 1

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch; ``words`` and ``labels`` have the shape ``(batch, tokens)`` of the token ids."""
        own = ("words", "labels")
        batch = dict(self._collator([{k: v for k, v in feature.items() if k not in own} for feature in features]))
        columns = batch["input_ids"].shape[1]
        for name, padding in zip(own, (NO_WORD, NO_TAG), strict=True):
            if name in features[0]:
                batch[name] = self._padded([feature[name] for feature in features], columns, padding)
        return batch

    def _padded(self, rows: Sequence[list[int]], columns: int, value: int) -> Tensor:
        """Return rows as a tensor, filled up on the side where the tokenizer pads."""
        left = self.tokenizer.padding_side == "left"
        filling = [[value] * (columns - len(row)) for row in rows]
        return torch.tensor([fill + row if left else row + fill for row, fill in zip(rows, filling, strict=True)])


def first_pieces(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the number of the word that each token is the first piece of, or ``NO_WORD``.

    Args:
        words: The words of a text, which stand there with a space between.
        offsets: Begin and end of each token in the text; empty for special tokens.
    """
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))
    # A token may begin with the space before its word, so that its last character tells.
    word_at = {place: number for number, end in enumerate(ends[1:]) for place in range(ends[number], end - 1)}
    seen = NO_WORD
    first = []
    for begin, end in offsets:
        word = word_at.get(end - 1, NO_WORD) if end > begin else NO_WORD
        first.append(word if word > seen else NO_WORD)
        seen = max(seen, word)
    return first
