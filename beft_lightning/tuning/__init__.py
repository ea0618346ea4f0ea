"""Methods of training: one dataclass for each, whose fields are its options."""

from beft_lightning.tuning.method import TuningMethod, set_up_tuning
from beft_lightning.tuning.registry import AUTO, METHODS, tuned_terms, tuning_method

__all__ = ["AUTO", "METHODS", "TuningMethod", "set_up_tuning", "tuned_terms", "tuning_method"]
