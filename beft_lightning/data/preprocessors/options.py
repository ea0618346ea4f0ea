"""Prompts with options to choose from."""

from typing import Any

from beft_lightning.data.packed_options import encode_options
from beft_lightning.data.preprocessors.prompt import PromptPreprocessor
from beft_lightning.data.prompt_task import Prompted


class OptionPreprocessor(PromptPreprocessor):
    """Encodes prompts and their options; with calibration, the options behind a prompt without content too."""

    def _encode(self, example: Prompted) -> dict[str, Any]:
        features = super()._encode(example)
        if self.task.calibrate:
            prompt = example.calibration_prompt or ""
            features["calibration"] = encode_options(self.tokenizer, prompt, example.options, self.room)
        return features

    def positions(self, features: dict[str, Any]) -> int:
        """Return the number of positions that an example needs: options stand beside each other."""
        positions: int = features["encoded"].positions
        return positions

    def _evaluation_inputs(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        inputs = self._pack([feature["encoded"] for feature in features])
        if self.task.calibrate:
            inputs["calibration"] = self._pack([feature["calibration"] for feature in features])
        return inputs
