"""The bias terms of a model: find, add, split and freeze them. Pure torch and transformers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from beft_lightning.bias.architecture import TERM_SYMBOLS, Architecture, Attention, Fused
from beft_lightning.bias.architectures import ARCHITECTURES
from beft_lightning.bias.attention_heads import set_heads_apart
from beft_lightning.bias.description import described
from beft_lightning.bias.discovery import discover
from beft_lightning.bias.fused import fuse_biases
from beft_lightning.bias.heads import head_parameters
from beft_lightning.bias.inert import inert_by_gradient, is_inert
from beft_lightning.bias.lookup import architecture_of, architectures_of, attention_of, pretrained_model
from beft_lightning.bias.terms import (
    BiasTerms,
    add_missing_biases,
    all_biases,
    find_bias_terms,
    freeze_except,
    resolve,
    split_fused_biases,
)

if TYPE_CHECKING:
    from beft_lightning.scoring.functional import fisher_score, magnitude_score, projection_score
    from beft_lightning.scoring.reference_adam import ReferenceAdam
    from beft_lightning.scoring.score_table import BiasScores, TermScore

#: Public names that live in the scoring package, which imports this one: they are imported on first use.
_SCORING = {
    "BiasScores": "score_table",
    "ReferenceAdam": "reference_adam",
    "TermScore": "score_table",
    "fisher_score": "functional",
    "magnitude_score": "functional",
    "projection_score": "functional",
}

__all__ = [
    "ARCHITECTURES",
    "TERM_SYMBOLS",
    "Architecture",
    "Attention",
    "BiasScores",
    "BiasTerms",
    "Fused",
    "ReferenceAdam",
    "TermScore",
    "add_missing_biases",
    "all_biases",
    "architecture_of",
    "architectures_of",
    "attention_of",
    "described",
    "discover",
    "find_bias_terms",
    "fisher_score",
    "freeze_except",
    "fuse_biases",
    "head_parameters",
    "inert_by_gradient",
    "is_inert",
    "magnitude_score",
    "pretrained_model",
    "projection_score",
    "resolve",
    "set_heads_apart",
    "split_fused_biases",
]


def __getattr__(name: str) -> Any:
    """Import a name of the scoring package on first use."""
    if name in _SCORING:
        return getattr(import_module(f"beft_lightning.scoring.{_SCORING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
