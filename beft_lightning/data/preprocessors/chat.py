"""Conversations: the answers are learnt, the last of them is generated."""

from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.chat_task import ChatTask, Conversation
from beft_lightning.data.chat_template import answer_spans, render
from beft_lightning.data.learnt_tokens import LearntTokens, pack_learnt
from beft_lightning.data.packed_options import without_beginning
from beft_lightning.data.preprocessors.language_model import LanguageModelPreprocessor
from beft_lightning.data.preprocessors.preprocessor import EncodingOptions


class ChatPreprocessor(LanguageModelPreprocessor[ChatTask]):
    """Encodes conversations as the tokenizer's chat template writes them.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer, a fast one.
        options: ``max_length`` holds a whole conversation, and what precedes the last answer together with as many
            tokens as are generated. Longer ones lose their beginning, but keep a leading bos token.
    """

    cut = ("conversations", "beginning")

    def __init__(self, task: ChatTask, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        super().__init__(task, tokenizer, options)
        self._room = task.generation.room(options.max_length)
        # Not all special tokens: in some templates one of them begins each message, and would begin half of one.
        self._kept = {tokenizer.bos_token_id}

    def _encode(self, example: Conversation) -> dict[str, Any]:
        *_, last = example.messages
        prompt = self._tokens(render(self.tokenizer, example.prompt, to_answer=True))[0]
        cut = max(0, len(prompt) - self._room)
        known = example.prompt != example.messages
        encoded = self._learnt(example) if known else LearntTokens((), ())
        return {
            "id": example.id,
            "answers": [[last["content"]]] if known else [],
            "prompt": without_beginning(prompt, cut, self._kept),
            "encoded": replace(encoded, truncated=max(encoded.truncated, cut)),
        }

    def _learnt(self, example: Conversation) -> LearntTokens:
        """Return the tokens of the whole conversation; those of the answers are learnt."""
        text, spans = answer_spans(self.tokenizer, example.messages)
        ids, offsets = self._tokens(text)
        # A token that holds the end of what precedes an answer and its beginning belongs to the answer.
        learnt = tuple(
            place
            for place, (begin, end) in enumerate(offsets)
            if any(end > first and begin < last for first, last in spans)
        )
        return LearntTokens(ids, learnt).without_beginning(self.max_length, self._kept)

    def _tokens(self, text: str) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return tuple(encoded["input_ids"]), encoded["offset_mapping"]

    def length(self, features: dict[str, Any]) -> int:
        """Return the number of tokens that an example costs."""
        return max(len(features["encoded"].ids), len(features["prompt"]))

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs."""
        return max(len(features["encoded"].ids), len(features["prompt"]) + self.task.generation.max_new_tokens)

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to learn from; there are no ``labels``, as its answers are part of its rows."""
        return pack_learnt([feature["encoded"] for feature in features], self.pad_token)

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to evaluate: prompts, ``id`` and ``answers``, and where answers are known ``learnt``."""
        known = all(feature["answers"] for feature in features)
        return {
            "id": torch.tensor([feature["id"] for feature in features]),
            "answers": [feature["answers"] for feature in features],
            **self._pad_prompts([feature["prompt"] for feature in features]),
            **({"learnt": self.collate_training(features)} if known else {}),
        }
