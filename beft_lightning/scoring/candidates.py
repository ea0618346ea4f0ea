"""Check candidate terms against a model."""

from collections.abc import Collection

from beft_lightning.errors import TermError


def check_candidates(
    candidates: Collection[str], terms: Collection[str], inert: Collection[str] | None, model_type: str
) -> None:
    """Check the candidates against a model.

    Args:
        candidates: The candidate terms.
        terms: The terms that the model has.
        inert: Those that cannot change its output; ``None`` if unknown.
        model_type: The model's type, for the message.

    Raises:
        TermError: If the model lacks one, or none of them can change its output.
    """
    if missing := [name for name in candidates if name not in terms]:
        raise TermError(f"no candidate {', '.join(map(repr, missing))} in this model; it has: {', '.join(terms)}.")
    if inert is not None and set(candidates) <= set(inert):
        raise TermError(
            f"every candidate ({', '.join(candidates)}) is inert in {model_type}: it cannot change the model's output, "
            "so there is nothing to choose. Add another candidate, or train it anyway with approach 'fixed'."
        )
