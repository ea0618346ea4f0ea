"""Prompts for causal language models: the part that choice and generation share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.packed_options import EncodedOptions, encode_options, pack_options
from beft_lightning.data.preprocessors.language_model import LanguageModelPreprocessor
from beft_lightning.data.preprocessors.preprocessor import NO_LABEL, EncodingOptions
from beft_lightning.data.prompt_task import Prompted, PromptTask


class PromptPreprocessor(LanguageModelPreprocessor[PromptTask]):
    """Encodes prompted examples.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer, a fast one.
        options: ``max_length`` holds the prompt and one option, or the generated answer.
    """

    cut = ("prompts", "beginning")

    def __init__(self, task: PromptTask, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        super().__init__(task, tokenizer, options)
        #: Most tokens of the prompt and one option.
        self.room = options.max_length

    def encode(self, examples: Sequence[Prompted]) -> list[dict[str, Any]]:
        """Encode the examples, and number their groups."""
        groups = {name: i for i, name in enumerate(dict.fromkeys(example.group for example in examples))}
        features = super().encode(examples)
        return [{**feature, "group": groups[e.group]} for feature, e in zip(features, examples, strict=True)]

    def _encode(self, example: Prompted) -> dict[str, Any]:
        return {
            "id": example.id,
            "labels": list(example.labels),
            "answers": [list(spans) for spans in example.answers],
            "candidates": list(example.candidates),
            "encoded": self._encode_options(example),
        }

    def _encode_options(self, example: Prompted) -> EncodedOptions:
        return encode_options(self.tokenizer, example.prompt, example.options, self.room)

    def length(self, features: dict[str, Any]) -> int:
        """Return the number of tokens that an example costs."""
        return int(features["encoded"].length)

    @abstractmethod
    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs."""

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to learn from: all options to choose among, or the right one alone to predict."""
        encoded = [feature["encoded"] for feature in features]
        labels = [feature["labels"][0] for feature in features]
        if self.task.loss == "lm":
            encoded = [example.only(label) for example, label in zip(encoded, labels, strict=True)]
        return {**self._pack(encoded), "labels": torch.tensor(labels)}

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch to evaluate.

        Beside the inputs it has ``id``, ``group``, ``answers``, ``candidates`` and ``labels``, the right options of
        each example, shape ``(batch, most right options)``, filled up with ``NO_LABEL``.
        """
        labels = [torch.tensor(feature["labels"], dtype=torch.long) for feature in features]
        return {
            "id": torch.tensor([feature["id"] for feature in features]),
            "group": torch.tensor([feature["group"] for feature in features]),
            "labels": pad_sequence(labels, batch_first=True, padding_value=NO_LABEL),
            **{name: [feature[name] for feature in features] for name in ("answers", "candidates")},
            **self._evaluation_inputs(features),
        }

    @abstractmethod
    def _evaluation_inputs(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the model's inputs of an evaluation batch."""

    def _pack(self, examples: Sequence[EncodedOptions]) -> dict[str, Any]:
        return pack_options(examples, self.pad_token)
