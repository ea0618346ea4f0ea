"""What is tuned: bias terms of a model, how to score, choose and freeze them. Pure torch and transformers."""

from beft_lightning.bias.architectures import ARCHITECTURES, architecture_of, language_model
from beft_lightning.bias.fused import fuse_biases
from beft_lightning.bias.inert import inert_by_gradient, is_inert
from beft_lightning.bias.layout import TERM_SYMBOLS, Architecture, Fused
from beft_lightning.bias.optimizer import ReferenceAdam
from beft_lightning.bias.ranking import BiasScores, TermScore
from beft_lightning.bias.scores import fisher_score, magnitude_score, projection_score
from beft_lightning.bias.terms import (
    BiasTerms,
    add_missing_biases,
    all_biases,
    find_bias_terms,
    freeze_except,
    head_parameters,
    resolve,
    split_fused_biases,
)

__all__ = [
    "ARCHITECTURES",
    "TERM_SYMBOLS",
    "Architecture",
    "BiasScores",
    "BiasTerms",
    "Fused",
    "ReferenceAdam",
    "TermScore",
    "add_missing_biases",
    "all_biases",
    "architecture_of",
    "find_bias_terms",
    "fisher_score",
    "freeze_except",
    "fuse_biases",
    "head_parameters",
    "inert_by_gradient",
    "is_inert",
    "language_model",
    "magnitude_score",
    "projection_score",
    "resolve",
    "split_fused_biases",
]
