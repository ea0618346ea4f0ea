"""Export of a trained model for other programs: as a PEFT adapter, or as a plain folder of transformers."""

from beft_lightning.export.formats import FORMATS, export
from beft_lightning.export.loading import load_trained
from beft_lightning.export.merging import make_plain, merge
from beft_lightning.export.peft import peft_adapter

__all__ = ["FORMATS", "export", "load_trained", "make_plain", "merge", "peft_adapter"]
