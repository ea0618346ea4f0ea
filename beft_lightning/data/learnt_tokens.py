"""Rows of tokens some of which are learnt, such as the answers of a conversation."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from beft_lightning.data.packed_options import PADDING, PROMPT, without_beginning
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class LearntTokens:
    """A row of tokens, and which of them are learnt.

    Args:
        ids: The tokens.
        learnt: Places of those that are learnt, ascending; at least one, and not the first, which nothing precedes.
        truncated: Number of tokens that were cut off.
    """

    ids: tuple[int, ...]
    learnt: tuple[int, ...]
    truncated: int = 0

    def without_beginning(self, max_length: int, special: Container[int] = ()) -> "LearntTokens":
        """Return the last ``max_length`` tokens.

        Args:
            max_length: Most tokens.
            special: Tokens one of which is kept, as one of the ``max_length``, where it begins the row.

        Raises:
            DataError: If a token to learn would be among those cut off, or nothing would precede it.
        """
        cut = max(0, len(self.ids) - max_length)
        if cut >= self.learnt[0]:
            raise DataError(
                f"what is to be learnt leaves no room for what precedes it within {max_length} tokens: raise "
                "max_length."
            )
        return LearntTokens(without_beginning(self.ids, cut, special), tuple(place - cut for place in self.learnt), cut)


def pack_learnt(examples: Sequence[LearntTokens], pad_token: int) -> dict[str, Any]:
    """Pack each example into a row, padded on the left. Its last token predicts nothing and is left out.

    Args:
        examples: The examples of a batch.
        pad_token: Id to fill up with.

    Returns:
        A batch of the form of :func:`~beft_lightning.data.packed_options.pack_options`: of each example, the tokens
        that are learnt are its one option.
    """
    shown = [example.ids[:-1] for example in examples]
    columns = max(map(len, shown))
    padding = [columns - len(ids) for ids in shown]
    targets = [
        (row, empty + place - 1, example.ids[place], row)
        for row, (example, empty) in enumerate(zip(examples, padding, strict=True))
        for place in example.learnt
    ]
    rows = [
        ([pad_token] * empty + [*ids], [PADDING] * empty + [PROMPT] * len(ids), [0] * empty + [*range(len(ids))])
        for ids, empty in zip(shown, padding, strict=True)
    ]
    names = ("input_ids", "segment_ids", "position_ids")
    target_names = ("target_row", "target_column", "target_token", "target_option")
    return {
        **dict(zip(names, torch.tensor(rows).unbind(1), strict=True)),
        **dict(zip(target_names, torch.tensor(targets).unbind(1), strict=True)),
        "option_row": torch.arange(len(examples)),
        "logits_to_keep": columns - min(column for _, column, _, _ in targets),
    }
