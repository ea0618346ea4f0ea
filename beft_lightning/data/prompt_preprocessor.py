"""Examples as causal language models see them: a prompt and its options, or an answer to generate."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.packed_options import EncodedOptions, encode_options, pack_options
from beft_lightning.data.prompt_task import Prompted, PromptTask
from beft_lightning.errors import DataError

#: Most tokens of a generated answer; they count towards ``max_length``.
MAX_NEW_TOKENS = 50


class PromptPreprocessor:
    """Turns prompted examples into token ids, and those into batches.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer.
        max_length: Most tokens of prompt and one option, or generated answer.
        calibrate: Add the options behind a prompt without content, to subtract what the model expects anyway (SFC).
    """

    def __init__(
        self, task: PromptTask, tokenizer: PreTrainedTokenizerBase, max_length: int, calibrate: bool = False
    ) -> None:
        if not tokenizer.is_fast:
            raise DataError(f"{type(tokenizer).__name__} cannot tell where an option begins: use a fast tokenizer.")
        if calibrate and task.kind == "generation":
            raise DataError(f"{task.name} generates its answers, so there are no options to calibrate.")
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.calibrate = calibrate
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if padding is None:
            raise DataError("the tokenizer has neither a pad nor an eos token: set one in its tokenizer_config.json.")
        self.pad_token = int(padding)

    def encode(self, rows: list[tuple[Prompted, int]]) -> list[dict[str, Any]]:
        """Encode the examples, and say how many prompts lost their beginning."""
        groups = {name: i for i, name in enumerate(dict.fromkeys(example.group for example, _ in rows))}
        features = [self._encode(example, place, groups[example.group]) for example, place in rows]
        cut = sum(feature["encoded"].truncated > 0 for feature in features)
        if cut:
            rank_zero_info(
                f"{cut:,} of {len(rows):,} prompts of {self.task.name} are longer than {self.max_length} tokens and "
                "lost their beginning; raise max_length if the model has the positions."
            )
        return features

    def _encode(self, example: Prompted, place: int, group: int) -> dict[str, Any]:
        room = self.max_length - (MAX_NEW_TOKENS if self.task.kind == "generation" else 0)
        feature = {
            "id": place,
            "gold": list(example.gold),
            "answers": [list(spans) for spans in example.answers],
            "candidates": list(example.candidates),
            "group": group,
            "encoded": encode_options(self.tokenizer, example.prompt, example.options, room),
        }
        if self.calibrate:
            prompt = example.calibration_prompt or ""
            feature["calibration"] = encode_options(self.tokenizer, prompt, example.options, room)
        return feature

    def length(self, features: dict[str, Any]) -> int:
        """Number of tokens that an example costs."""
        return int(features["encoded"].length)

    def positions(self, features: dict[str, Any]) -> int:
        """Number of positions that an example needs: options stand beside each other, not one after another."""
        encoded = features["encoded"]
        if self.task.kind == "generation":
            return len(encoded.prompt) + MAX_NEW_TOKENS
        return len(encoded.shared) + max(map(len, encoded.own)) - 1

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch to learn from: all options to choose among, or the right one alone to predict."""
        encoded = [feature["encoded"] for feature in features]
        if self.task.loss == "lm":
            encoded = [example.only(feature["gold"][0]) for example, feature in zip(encoded, features, strict=True)]
        return {**self._pack(encoded), "label": torch.tensor([feature["gold"][0] for feature in features])}

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch to evaluate: options or prompts, and what metrics compare with."""
        batch: dict[str, Any] = {
            "id": torch.tensor([feature["id"] for feature in features]),
            "group": torch.tensor([feature["group"] for feature in features]),
            **{name: [feature[name] for feature in features] for name in ("gold", "answers", "candidates")},
        }
        if self.task.kind == "generation":
            prompts = [{"input_ids": list(feature["encoded"].prompt)} for feature in features]
            return {**batch, **self._pad_left(prompts)}
        batch.update(self._pack([feature["encoded"] for feature in features]))
        if self.calibrate:
            batch["calibration"] = self._pack([feature["calibration"] for feature in features])
        return batch

    def _pack(self, examples: Sequence[EncodedOptions]) -> dict[str, Any]:
        return pack_options(examples, self.pad_token)

    def _pad_left(self, prompts: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        columns = max(len(prompt["input_ids"]) for prompt in prompts)
        input_ids = torch.full((len(prompts), columns), self.pad_token)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            begin = columns - len(prompt["input_ids"])
            input_ids[row, begin:] = torch.tensor(prompt["input_ids"])
            attention_mask[row, begin:] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}


def demonstrated(example: Prompted, demonstrations: Sequence[Prompted]) -> Prompted:
    """The example behind solved ones: in-context learning.

    Args:
        example: What is to be solved.
        demonstrations: Examples with their right options, in this order.
    """
    solved = [(shown.prompt + shown.options[shown.gold[0]]).strip() for shown in demonstrations]
    context = "\n\n".join([*solved, ""])
    calibration = None if example.calibration_prompt is None else context + example.calibration_prompt
    return Prompted(**{**vars(example), "prompt": context + example.prompt, "calibration_prompt": calibration})
