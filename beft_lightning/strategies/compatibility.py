"""Which precision, strategy and option fit together."""

import torch
from lightning.pytorch import Trainer

from beft_lightning.bias.precision import HALF
from beft_lightning.errors import BeftError
from beft_lightning.models import DTYPES, QUANTIZED
from beft_lightning.strategies.adaptation import adapt


def check_precision(trainer: Trainer) -> None:
    """Check that the precision keeps the trained biases in fp32.

    Raises:
        BeftError: If it is ``bf16-true`` or ``16-true``.
    """
    if trainer.precision in ("bf16-true", "16-true"):
        raise BeftError(
            f"precision {trainer.precision!r} would cast the trained biases to half precision, where small "
            "updates are lost: use 'bf16-mixed', or '32-true'; the frozen weights may be loaded in half precision."
        )


def check_model_options(trainer: Trainer, dtype: str, activation_checkpointing: bool) -> None:
    """Check that options of the model fit the trainer.

    Args:
        trainer: Has the precision and the strategy.
        dtype: Precision of the frozen weights.
        activation_checkpointing: Whether layers are computed again in the backward pass.

    Raises:
        BeftError: If the frozen weights and fp32 biases could not meet, or the strategy cannot do what is asked for.
    """
    strategy = adapt(trainer.strategy)
    full = str(trainer.precision).startswith("32")
    if dtype in QUANTIZED and not full:
        raise BeftError(
            f"dtype {dtype!r} with trainer precision {trainer.precision!r}: bitsandbytes casts a layer's bias to the "
            "precision of its input, which autocast makes half; set trainer.precision to '32-true'."
        )
    if activation_checkpointing and not strategy.recomputes:
        raise BeftError(
            "activation_checkpointing does not work under ZeRO-3, which releases the weights of a layer after its "
            "forward pass: leave it out, or use ModelParallelStrategy (FSDP2)."
        )
    if dtype in QUANTIZED and dtype not in strategy.quantized:
        others = "DDPStrategy" if dtype == "int8" else "DDPStrategy, ModelParallelStrategy (FSDP2)"
        raise BeftError(
            f"dtype {dtype!r} under {type(strategy).__name__}, which would shard bitsandbytes' weights: use {others}, "
            "or dtype 'bfloat16'."
        )
    if dtype in DTYPES:
        check_half_weights(trainer, DTYPES[dtype])


def check_half_weights(trainer: Trainer, dtype: torch.dtype) -> None:
    """Check that frozen weights of a precision can meet fp32 biases.

    Raises:
        BeftError: If the weights are in half precision, and the trainer does not use autocast.
    """
    if dtype in HALF and str(trainer.precision).startswith("32"):
        mixed = "bf16-mixed" if dtype == torch.bfloat16 else "16-mixed"
        raise BeftError(
            f"the frozen weights are {dtype} and the trainer's precision is {trainer.precision!r}: the trained "
            f"parameters stay fp32, and meet such weights under autocast only. Set precision to {mixed!r}, or load the "
            "model in float32."
        )
