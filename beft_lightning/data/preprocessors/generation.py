"""Prompts with an answer to generate."""

from functools import partial
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from beft_lightning.data.preprocessors.prompt import PromptPreprocessor

#: Most tokens of a generated answer; they count towards ``max_length``.
MAX_NEW_TOKENS = 50


class GenerationPreprocessor(PromptPreprocessor):
    """Encodes prompts and the answer to learn; the model evaluates prompts alone, padded on the left."""

    @property
    def room(self) -> int:
        """Most tokens of the prompt and the answer to learn: those that generation leaves free."""
        return self.max_length - MAX_NEW_TOKENS

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs."""
        return len(features["encoded"].prompt) + MAX_NEW_TOKENS

    def _evaluation_inputs(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        # Not `tokenizer.pad`, which wants a pad token even where there is nothing to pad; GPT-2 and others have none.
        prompts = [torch.tensor(feature["encoded"].prompt) for feature in features]
        masks = [torch.ones_like(prompt) for prompt in prompts]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        return {"input_ids": pad(prompts, padding_value=self.pad_token), "attention_mask": pad(masks)}
