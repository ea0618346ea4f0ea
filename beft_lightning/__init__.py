"""Bias-efficient fine-tuning with PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beft_lightning.adapter import load_adapter
    from beft_lightning.callbacks import AdapterCheckpoint, BiasSelectionCallback
    from beft_lightning.loading import load
    from beft_lightning.tasks import LanguageTaskModule

__version__ = "0.1.0"

_EXPORTS = {
    "AdapterCheckpoint": "beft_lightning.callbacks",
    "BiasSelectionCallback": "beft_lightning.callbacks",
    "LanguageTaskModule": "beft_lightning.tasks",
    "load": "beft_lightning.loading",
    "load_adapter": "beft_lightning.adapter",
}

__all__ = ["AdapterCheckpoint", "BiasSelectionCallback", "LanguageTaskModule", "__version__", "load", "load_adapter"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``python -m beft_lightning --help`` answers at once."""
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
