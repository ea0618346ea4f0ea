"""Which precision, strategy and option fit together."""

from lightning.pytorch import Trainer

from beft_lightning.errors import BeftError


def check_precision(trainer: Trainer) -> None:
    """Refuse a precision that would keep the trained biases in half precision.

    Raises:
        BeftError: If it is ``bf16-true`` or ``16-true``.
    """
    if trainer.precision in ("bf16-true", "16-true"):
        raise BeftError(
            f"precision {trainer.precision!r} would cast the trained biases to half precision, where small "
            "updates are lost: use 'bf16-mixed', or '32-true'; the frozen weights may be loaded in half precision."
        )
