"""Prompts with an answer to generate."""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from beft_lightning.data.generation import end_of_text
from beft_lightning.data.packed_options import EncodedOptions, encode_prompt
from beft_lightning.data.preprocessors.preprocessor import EncodingOptions
from beft_lightning.data.preprocessors.prompt import PromptPreprocessor
from beft_lightning.data.prompt_task import Prompted, PromptTask


class GenerationPreprocessor(PromptPreprocessor):
    """Encodes prompts and the answer to learn; the model evaluates prompts alone, padded on the left.

    Args:
        task: The task's record.
        tokenizer: The backbone's tokenizer, a fast one.
        options: ``max_length`` holds the prompt, the answer to learn, and as many tokens as are generated.
    """

    def __init__(self, task: PromptTask, tokenizer: PreTrainedTokenizerBase, options: EncodingOptions) -> None:
        super().__init__(task, tokenizer, options)
        #: Most tokens of the prompt and the answer to learn: those that generation leaves free.
        self.room = task.generation.room(options.max_length)

    def _encode_options(self, example: Prompted) -> EncodedOptions:
        if not example.options:
            return encode_prompt(self.tokenizer, example.prompt, self.room)
        answers = tuple(option.removesuffix("\n") for option in example.options)
        if self.task.generation.stop == "end_of_text":
            return super()._encode_options(replace(example, options=answers)).ended(end_of_text(self.tokenizer))
        return super()._encode_options(replace(example, options=tuple(f"{answer}\n" for answer in answers)))

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs: those of the answer to learn, or to generate."""
        encoded = features["encoded"]
        return max(int(encoded.length), len(encoded.prompt) + self.task.generation.max_new_tokens)

    def _evaluation_inputs(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        encoded = [feature["encoded"] for feature in features]
        inputs = self._pad_prompts([example.prompt for example in encoded])
        if all(example.own for example in encoded):
            inputs["learnt"] = self._pack([e.only(f["labels"][0]) for e, f in zip(encoded, features, strict=True)])
        return inputs
