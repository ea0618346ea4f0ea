"""Preprocessors: from examples to the model's inputs and batches, one for each kind of task."""

from collections.abc import Mapping
from typing import Any

from beft_lightning.data.preprocessors.chat import ChatPreprocessor
from beft_lightning.data.preprocessors.free_text import FreeTextPreprocessor
from beft_lightning.data.preprocessors.generation import GenerationPreprocessor
from beft_lightning.data.preprocessors.media import AudioPreprocessor, ImagePreprocessor
from beft_lightning.data.preprocessors.multiple_choice import MultipleChoicePreprocessor
from beft_lightning.data.preprocessors.options import OptionPreprocessor
from beft_lightning.data.preprocessors.preprocessor import EncodingOptions, Preprocessor
from beft_lightning.data.preprocessors.text import TextPreprocessor
from beft_lightning.data.preprocessors.tokens import TokenPreprocessor

#: Kind of task -> its preprocessor, made from the task's record, the tokenizer or other processor, and the encoding
#: options.
PREPROCESSORS: Mapping[str, Any] = {
    "classification": TextPreprocessor,
    "regression": TextPreprocessor,
    "multi_label": TextPreprocessor,
    "token_classification": TokenPreprocessor,
    "multiple_choice": MultipleChoicePreprocessor,
    "choice": OptionPreprocessor,
    "generation": GenerationPreprocessor,
    "chat": ChatPreprocessor,
    "text": FreeTextPreprocessor,
    "image_classification": ImagePreprocessor,
    "audio_classification": AudioPreprocessor,
}

__all__ = ["PREPROCESSORS", "EncodingOptions", "Preprocessor"]
