"""A tag for each word: an encoder under a new head."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForTokenClassification, PreTrainedModel

from beft_lightning.data.preprocessors.tokens import NO_TAG, NO_WORD
from beft_lightning.tasks.objectives.classification import ClassificationObjective


class TokenClassificationObjective(ClassificationObjective):
    """A tag of a fixed set for each word, from the word's first piece."""

    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    not_inputs = (*ClassificationObjective.not_inputs, "words", "word_count")

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy averaged over the batch's words.

        Args:
            logits: Outputs of shape ``(batch, tokens, tags)``.
            labels: Tag ids at the first piece of each word, ``NO_TAG`` elsewhere, shape ``(batch, tokens)``.
        """
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_TAG)

    def loss_weight(self, batch: dict[str, Any]) -> int:
        """Return the number of words that have a tag."""
        return int((batch["labels"] != NO_TAG).sum())

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the ``tags`` of each example's words, None for words that were cut off."""
        tags = self.decode(self.predictions_of(self.logits(model, batch)), batch)
        return [{"tags": of_one} for of_one in tags]

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the tags of each example's words, None for words that were cut off.

        Args:
            predictions: Tag ids of all tokens, shape ``(batch, tokens)``.
            batch: The batch; ``words`` says which tokens are the first piece of which word.
        """
        decoded = []
        for ids, words, count in zip(predictions, batch["words"], batch["word_count"].tolist(), strict=True):
            first = words != NO_WORD
            tags: list[str | None] = [None] * count
            for word, tag in zip(words[first].tolist(), ids[first].tolist(), strict=True):
                tags[word] = self.task.labels[tag]
            decoded.append(tags)
        return decoded
