"""A model of lm-evaluation-harness: checkpoints of fits under its tasks.

    python -m beft_lightning.serving.harness --model beft --model_args checkpoint=last.ckpt --tasks copa,boolq

Everything else is the harness's own command line.
"""

from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from beft_lightning.bias.precision import half_dtype
from beft_lightning.errors import BeftError
from beft_lightning.loading import load
from beft_lightning.serving.bank import AdapterBank


@register_model("beft")
class BeftLM(HFLM):
    """A language model with the values of a checkpoint, or of an adapter of a bank.

    Args:
        checkpoint: A checkpoint of a fit of a prompted task, or a folder of ``export``.
        backbone: Location of the base now, if it is not where the fit found it.
        bank: A bank, instead of a checkpoint.
        adapter: Name of the adapter of the bank.
        tokenizer: The bank's tokenizer.
        device: Where to compute; by default on an accelerator if there is one.
        options: Further options of the harness's model for transformers, such as ``batch_size``.

    Raises:
        BeftError: If neither or both of checkpoint and bank are given, or the model is no language model.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        backbone: str | None = None,
        *,
        bank: AdapterBank | None = None,
        adapter: str | None = None,
        tokenizer: Any = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        if (checkpoint is None) == (bank is None or adapter is None):
            raise BeftError("give either a checkpoint, or a bank with the name of an adapter.")
        if bank is not None and adapter is not None:
            model = bank.alone(adapter)
        else:
            predictor = load(str(checkpoint), backbone=backbone, device=device)
            model, tokenizer = predictor.model, predictor.tokenizer
        if model.get_output_embeddings() is None:
            raise BeftError(f"{checkpoint}: {type(model).__name__} is no language model, which the harness needs.")
        # Biases are fp32 over weights in half precision, and meet them under autocast.
        options.setdefault("mixed_precision_dtype", half_dtype(model))
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", **options)


if __name__ == "__main__":
    cli_evaluate()
