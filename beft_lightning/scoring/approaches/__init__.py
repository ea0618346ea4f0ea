"""The approaches to score bias terms, by name: one class each, one entry here."""

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.approaches.approach import Approach
from beft_lightning.scoring.approaches.change import Magnitude, Projection
from beft_lightning.scoring.approaches.fisher import Fisher, SampleFisher
from beft_lightning.scoring.approaches.gradient import AdamGain, Gradient, GradientSignal

__all__ = ["APPROACHES", "Approach", "approach_named"]

APPROACHES: dict[str, Approach] = {
    "projection": Projection(),
    "magnitude": Magnitude(),
    "fisher": Fisher(),
    "sample_fisher": SampleFisher(),
    "gradient": Gradient(),
    "adam_gain": AdamGain(),
    "gradient_signal": GradientSignal(),
}


def approach_named(name: str) -> Approach:
    """Return the approach of a name.

    Raises:
        ScoringError: If there is none.
    """
    try:
        return APPROACHES[name]
    except KeyError:
        raise ScoringError(f"no scoring approach {name!r}; choose one of: {', '.join(APPROACHES)}.") from None
