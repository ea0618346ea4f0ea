"""The part that all preprocessors for causal language models share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.preprocessors.preprocessor import EncodingOptions
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError

Record = TypeVar("Record", bound=TaskRecord)


class LanguageModelPreprocessor(ABC, Generic[Record]):
    """Encodes examples for causal language models.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer, a fast one.
        options: ``max_length`` holds all tokens of an example.

    Raises:
        DataError: If the tokenizer cannot tell where an option begins, or has no token to pad with.
    """

    #: What is cut if an example is too long, for a message: a name in the plural, and the part.
    cut: ClassVar[tuple[str, str]]

    def __init__(self, task: Record, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        if not tokenizer.is_fast:
            raise DataError(f"{type(tokenizer).__name__} cannot tell where an option begins: use a fast tokenizer.")
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = options.max_length
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if padding is None:
            raise DataError("the tokenizer has neither a pad nor an eos token: set one in its tokenizer_config.json.")
        self.pad_token = int(padding)

    def encode(self, examples: Sequence[Any]) -> list[dict[str, Any]]:
        """Encode the examples, and log how many had to be cut.

        Raises:
            DataError: If one cannot be encoded; the message says how many.
        """
        features: list[dict[str, Any]] = []
        failed: list[tuple[str, DataError]] = []
        for example in examples:
            try:
                features.append(self._encode(example))
            except DataError as error:
                failed.append((example.where, error))
        if failed:
            where, first = failed[0]
            place = f"{where}: " if where else ""
            raise DataError(f"{place}{first} So it is in {len(failed):,} of {len(examples):,} examples.") from first
        cut = sum(feature["encoded"].truncated > 0 for feature in features)
        if cut:
            rank_zero_info(self._cut_message(cut, len(examples)))
        return features

    def _cut_message(self, cut: int, total: int) -> str:
        """Return what is logged if ``cut`` of ``total`` examples are too long."""
        what, part = self.cut
        return (
            f"{cut:,} of {total:,} {what} of {self.task.name} are longer than {self.max_length} tokens and lost their "
            f"{part}; raise max_length if the model has the positions."
        )

    def rows(self, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of a fit's batches: a row for each example."""
        return features

    @abstractmethod
    def _encode(self, example: Any) -> dict[str, Any]:
        """Return the features of an example: ``id``, ``encoded`` and what its metrics compare with."""

    def _pad_prompts(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return prompts to continue, padded on the left: ``input_ids`` and ``attention_mask``."""
        # Not `tokenizer.pad`, which wants a pad token even where there is nothing to pad; GPT-2 and others have none.
        ids = [torch.tensor(prompt) for prompt in prompts]
        masks = [torch.ones_like(prompt) for prompt in ids]
        pad = partial(pad_sequence, batch_first=True, padding_side="left")
        return {"input_ids": pad(ids, padding_value=self.pad_token), "attention_mask": pad(masks)}
