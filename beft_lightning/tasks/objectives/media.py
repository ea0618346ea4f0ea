"""Classification of images and sounds: a vision or speech model under a new head."""

from typing import Any, ClassVar

from transformers import AutoModelForAudioClassification, AutoModelForImageClassification

from beft_lightning.tasks.objectives.classification import ClassificationObjective


class ImageObjective(ClassificationObjective):
    """One label of a fixed set for each image."""

    auto_class: ClassVar[Any] = AutoModelForImageClassification


class AudioObjective(ClassificationObjective):
    """One label of a fixed set for each sound."""

    auto_class: ClassVar[Any] = AutoModelForAudioClassification
