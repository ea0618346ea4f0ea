"""Prompts for causal language models: the part that choice and generation share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.packed_options import EncodedOptions, encode_options, pack_options
from beft_lightning.data.preprocessors.preprocessor import NO_LABEL, EncodingOptions
from beft_lightning.data.prompt_task import Prompted, PromptTask
from beft_lightning.errors import DataError


class PromptPreprocessor(ABC):
    """Encodes prompted examples.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer, a fast one.
        options: ``max_length`` holds the prompt and one option, or the generated answer.

    Raises:
        DataError: If the tokenizer cannot tell where an option begins, or has no token to pad with.
    """

    def __init__(self, task: PromptTask, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        if not tokenizer.is_fast:
            raise DataError(f"{type(tokenizer).__name__} cannot tell where an option begins: use a fast tokenizer.")
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = options.max_length
        self.calibrate = options.calibrate
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if padding is None:
            raise DataError("the tokenizer has neither a pad nor an eos token: set one in its tokenizer_config.json.")
        self.pad_token = int(padding)

    @property
    def room(self) -> int:
        """Most tokens of the prompt and one option."""
        return self.max_length

    def encode(self, examples: Sequence[Prompted]) -> list[dict[str, Any]]:
        """Encode the examples, and log how many prompts lost their beginning."""
        groups = {name: i for i, name in enumerate(dict.fromkeys(example.group for example in examples))}
        features = [{**self._encode(example), "group": groups[example.group]} for example in examples]
        cut = sum(feature["encoded"].truncated > 0 for feature in features)
        if cut:
            rank_zero_info(
                f"{cut:,} of {len(examples):,} prompts of {self.task.name} are longer than {self.max_length} tokens "
                "and lost their beginning; raise max_length if the model has the positions."
            )
        return features

    def _encode(self, example: Prompted) -> dict[str, Any]:
        return {
            "id": example.id,
            "labels": list(example.labels),
            "answers": [list(spans) for spans in example.answers],
            "candidates": list(example.candidates),
            "encoded": encode_options(self.tokenizer, example.prompt, example.options, self.room),
        }

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
        labels = [torch.tensor(feature["labels"]) for feature in features]
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
