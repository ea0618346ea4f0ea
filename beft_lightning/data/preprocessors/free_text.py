"""Free text: every token is learnt but the first, which nothing precedes."""

from dataclasses import replace
from textwrap import shorten
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.data.free_text_task import FreeText, FreeTextTask
from beft_lightning.data.generation import end_of_text
from beft_lightning.data.packed_options import pack_options, plain_tokens
from beft_lightning.data.packed_texts import encode_text, pack_texts
from beft_lightning.data.preprocessors.language_model import LanguageModelPreprocessor
from beft_lightning.errors import DataError


class FreeTextPreprocessor(LanguageModelPreprocessor[FreeTextTask]):
    """Encodes texts with the end-of-text token behind them; longer ones than ``max_length`` tokens lose their end.

    In the rows of a fit they do not, if the task packs texts.
    """

    cut = ("texts", "end")

    def _encode(self, example: FreeText) -> dict[str, Any]:
        ids = [*plain_tokens(self.tokenizer, example.text), end_of_text(self.tokenizer)]
        kept = ids[: self.max_length]
        if len(kept) < 2:
            raise DataError(
                f"the text {shorten(example.text, 60)!r} has fewer than two tokens within {self.max_length}: nothing "
                "precedes what is to be learnt. Raise max_length, or remove the row."
            )
        return {
            "id": example.id,
            "ids": ids,
            "encoded": replace(encode_text(kept), truncated=len(ids) - len(kept)),
        }

    def _cut_message(self, cut: int, total: int) -> str:
        if not self.task.packing:
            return super()._cut_message(cut, total)
        return (
            f"{cut:,} of {total:,} texts of {self.task.name} are longer than {self.max_length} tokens: they go on in "
            "the next row. Predictions of single texts look at the first row of a text alone."
        )

    def rows(self, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of a fit: the texts packed, if the task asks for it."""
        if not self.task.packing:
            return features
        packed = pack_texts([feature["ids"] for feature in features], self.max_length)
        rank_zero_info(
            f"{len(features):,} texts of {self.task.name} are packed into {len(packed):,} rows of up to "
            f"{self.max_length:,} tokens."
        )
        return [{"id": number, "encoded": row} for number, row in enumerate(packed)]

    def length(self, features: dict[str, Any]) -> int:
        """Return the number of tokens that a row costs."""
        return int(features["encoded"].length)

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that a text needs."""
        return min(len(features["ids"]), self.max_length)

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to learn from; there are no ``labels``, as the rows themselves are learnt."""
        return pack_options([feature["encoded"] for feature in features], self.pad_token)

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to evaluate: the same, and ``id``."""
        return {**self.collate_training(features), "id": torch.tensor([feature["id"] for feature in features])}
