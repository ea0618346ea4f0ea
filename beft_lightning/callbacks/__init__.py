"""Callbacks that work with any LightningModule."""

from beft_lightning.callbacks.adapter_checkpoint import AdapterCheckpoint
from beft_lightning.callbacks.bias_selection import BiasSelectionCallback
from beft_lightning.callbacks.frozen_layer_cache import FrozenLayerCache
from beft_lightning.callbacks.interruption import Interruption
from beft_lightning.callbacks.last_checkpoint import LastCheckpoint
from beft_lightning.callbacks.nonfinite import NonFiniteCheck
from beft_lightning.callbacks.prediction_writer import PredictionWriter
from beft_lightning.callbacks.rate_race import RateRace
from beft_lightning.callbacks.run_summary import RunSummary
from beft_lightning.callbacks.terminal import Terminal

__all__ = [
    "AdapterCheckpoint",
    "BiasSelectionCallback",
    "FrozenLayerCache",
    "Interruption",
    "LastCheckpoint",
    "NonFiniteCheck",
    "PredictionWriter",
    "RateRace",
    "RunSummary",
    "Terminal",
]
