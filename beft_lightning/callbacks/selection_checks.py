"""Checks of the options of a BiasSelectionCallback, without a model."""

from collections.abc import Sequence

from beft_lightning.bias.heads import AUTO
from beft_lightning.errors import ScoringError, TermError
from beft_lightning.scoring.approaches import APPROACHES
from beft_lightning.scoring.reference_adam import check_learning_rate
from beft_lightning.scoring.selection import SelectionRule

#: In place of a score: candidates are trained for a few batches and compared.
RACE = "race"
#: In place of an approach: train the named terms without scoring.
FIXED = "fixed"


def check_selection(
    approach: str, terms: Sequence[str], head: str | list[str], towers: int, rule: SelectionRule, scores: object
) -> None:
    """Check what to choose from, and how.

    Args:
        approach: Name of the approach.
        terms: The candidates.
        head: What is trained beside the biases.
        towers: Number of scopes whose terms are kept apart.
        rule: How many terms or layers are wanted.
        scores: A file to choose from, if there is one.

    Raises:
        BeftError: If an option is impossible, or two contradict each other.
    """
    approaches = [*APPROACHES, RACE, FIXED]
    if isinstance(terms, str) or not terms:
        raise TermError(f"terms is {terms!r}: name at least one candidate in a list, for example ['value'].")
    if approach not in approaches:
        raise ScoringError(f"approach is {approach!r}; choose one of: {', '.join(approaches)}.")
    if isinstance(head, str) and head not in (AUTO, "none"):
        raise TermError(f"head is {head!r}; choose 'auto', 'none', or a list of patterns such as ['*{head}*'].")
    candidates = len(set(terms)) * towers
    if rule.keep < 1 or (approach != FIXED and not (rule.per_layer or rule.per_head) and rule.keep > candidates):
        raise ScoringError(f"keep is {rule.keep}, and there are {candidates} candidate terms to keep some of.")
    if rule.budget is not None and (rule.budget < 1 or rule.keep != 1 or approach == FIXED):
        raise ScoringError(
            f"budget is {rule.budget}: give a positive number of values, no keep ({rule.keep}), and an approach that "
            "scores."
        )
    if approach == RACE and rule != SelectionRule():
        raise ScoringError("approach 'race' chooses one whole term: leave out keep, per_layer, per_head and budget.")
    if approach == FIXED and (scores is not None or rule.per_head):
        raise ScoringError("approach 'fixed' does not look at scores: leave it out, or `scores` and `per_head`.")


def check_scoring(batches: int, patience: int, learning_rate: float, clip_norm: float | None) -> None:
    """Check the options of the scoring pass.

    Raises:
        BeftError: If one is impossible.
    """
    if batches < 1 or patience < 0 or (clip_norm is not None and not clip_norm > 0):
        given = f"batches ({batches}) and clip_norm ({clip_norm}) must be positive, patience ({patience})"
        raise ScoringError(f"{given} at least 0.")
    check_learning_rate(learning_rate, "selection.learning_rate")
