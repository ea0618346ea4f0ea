"""A trained model for other programs: as a PEFT adapter, or as a plain folder of transformers."""

from beft_lightning.export.export import FORMATS, export, load_trained, peft_adapter
from beft_lightning.export.merging import merge

__all__ = ["FORMATS", "export", "load_trained", "merge", "peft_adapter"]
