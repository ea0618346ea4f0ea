"""Free text: every token is learnt but the first, which nothing precedes."""

from textwrap import shorten
from typing import Any

import torch

from beft_lightning.data.free_text_task import FreeText, FreeTextTask
from beft_lightning.data.generation import end_of_text
from beft_lightning.data.learnt_tokens import LearntTokens, pack_learnt
from beft_lightning.data.packed_options import plain_tokens
from beft_lightning.data.preprocessors.language_model import LanguageModelPreprocessor
from beft_lightning.errors import DataError


class FreeTextPreprocessor(LanguageModelPreprocessor[FreeTextTask]):
    """Encodes texts with the end-of-text token behind them; longer ones than ``max_length`` tokens lose their end."""

    cut = ("texts", "end")

    def _encode(self, example: FreeText) -> dict[str, Any]:
        ids = [*plain_tokens(self.tokenizer, example.text), end_of_text(self.tokenizer)]
        kept = ids[: self.max_length]
        if len(kept) < 2:
            raise DataError(
                f"the text {shorten(example.text, 60)!r} has fewer than two tokens within {self.max_length}: nothing "
                "precedes what is to be learnt. Raise max_length, or remove the row."
            )
        encoded = LearntTokens(tuple(kept), tuple(range(1, len(kept))), len(ids) - len(kept))
        return {"id": example.id, "encoded": encoded}

    def length(self, features: dict[str, Any]) -> int:
        """Return the number of tokens that an example costs."""
        return len(features["encoded"].ids)

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs."""
        return self.length(features)

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to learn from; there are no ``labels``, as the rows themselves are learnt."""
        return pack_learnt([feature["encoded"] for feature in features], self.pad_token)

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to evaluate: the same, and ``id``."""
        return {**self.collate_training(features), "id": torch.tensor([feature["id"] for feature in features])}
