"""Images and sounds: read when a batch is made, and prepared by the backbone's own processor."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from beft_lightning.data.media.images import Mode, read_image
from beft_lightning.data.media.sounds import read_sound
from beft_lightning.data.media.task import AudioTask, MediaExample, MediaTask
from beft_lightning.data.preprocessors.preprocessor import EncodingOptions


class MediaPreprocessor(ABC):
    """Reads and batches images or sounds.

    Args:
        task: The task's record.
        processor: The backbone's image processor or feature extractor.
        options: Not used: the processor says what an input looks like.
    """

    def __init__(self, task: MediaTask, processor: Any, options: EncodingOptions) -> None:
        self.task = task
        self.processor = processor

    def encode(self, examples: Sequence[MediaExample]) -> list[dict[str, Any]]:
        """Return where each example is, its cost, ``id`` and, where it has a label, ``labels``.

        Each is read once, so that one that cannot be read stops a run before its first step.
        """
        return [
            {"media": example.media, "where": example.where, "id": example.id}
            | {"length": self.cost(self.read(example.media, example.where))}
            | ({} if example.label is None else {"labels": example.label})
            for example in examples
        ]

    def rows(self, features: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of a fit's batches: a row for each example."""
        return features

    @abstractmethod
    def read(self, media: Any, where: str) -> NDArray[Any]:
        """Return an image or a sound as the array that the processor takes."""

    @abstractmethod
    def cost(self, array: NDArray[Any]) -> int:
        """Return what an example costs: examples of a batch should cost about the same."""

    @abstractmethod
    def process(self, arrays: list[NDArray[Any]]) -> dict[str, Any]:
        """Return the model's inputs for the arrays of a batch."""

    def length(self, features: dict[str, Any]) -> int:
        """Return what an example costs."""
        return int(features["length"])

    def positions(self, features: dict[str, Any]) -> int:
        """Return 0: the processor sees to it that an input has the model's size."""
        return 0

    def collate_training(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch: the model's inputs, ``labels`` where there are any, and ``id``."""
        batch = self.process([self.read(feature["media"], feature["where"]) for feature in features])
        numbers = [name for name in ("labels", "id") if name in features[0]]
        return batch | {name: torch.tensor([feature[name] for feature in features]) for name in numbers}

    def collate_evaluation(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the same as :meth:`collate_training`."""
        return self.collate_training(features)


class ImagePreprocessor(MediaPreprocessor):
    """Reads and batches images; those of a batch are brought to one size by the processor."""

    @property
    def mode(self) -> Mode:
        """The colours that the model sees: grey levels if the processor knows the mean of one channel."""
        return "L" if len(self.processor.image_mean) == 1 else "RGB"

    def read(self, media: Any, where: str) -> NDArray[np.uint8]:
        """Return the pixels, shape ``(height, width, channels)``."""
        return read_image(media, self.mode, where)

    def cost(self, array: NDArray[Any]) -> int:
        """Return 1: all images have one size for the model."""
        return 1

    def process(self, arrays: list[NDArray[Any]]) -> dict[str, Any]:
        """Return ``pixel_values``, shape ``(batch, channels, height, width)``."""
        return dict(self.processor(arrays, return_tensors="pt", input_data_format="channels_last"))


class AudioPreprocessor(MediaPreprocessor):
    """Reads and batches sounds; shorter ones are filled up with silence."""

    task: AudioTask

    def read(self, media: Any, where: str) -> NDArray[np.float32]:
        """Return the samples, shape ``(samples,)``, cut behind the longest that the task allows."""
        rate = self.processor.sampling_rate
        return read_sound(media, rate, where)[: round(self.task.max_seconds * rate)]

    def cost(self, array: NDArray[Any]) -> int:
        """Return the number of samples, or 1 if the processor fills all sounds up to one length."""
        return 1 if self._fixed else len(array)

    @property
    def _fixed(self) -> bool:
        """Whether the model takes spectrograms of one length, as Whisper does."""
        return hasattr(self.processor, "nb_max_frames")

    def process(self, arrays: list[NDArray[Any]]) -> dict[str, Any]:
        """Return the samples or spectrograms, and the attention mask if the processor has been made to return it."""
        return dict(
            self.processor(
                arrays,
                sampling_rate=self.processor.sampling_rate,
                padding="max_length" if self._fixed else "longest",
                return_tensors="pt",
            )
        )
