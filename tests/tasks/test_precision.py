"""Small steps of fp32 biases over frozen weights of any precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from beft_lightning.models import load_model
from tests.tiny import LAYERS

MakeTrainer = Callable[..., Trainer]
PRECISIONS = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "bf16-mixed",
    "int8": "32-true",
    "nf4": "32-true",
}


@pytest.fixture(scope="module")
def data(decoder: str, sst2_dir: str) -> Glue:
    return Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, batch_size=8, seed=0)


def run(dtype: str, decoder: str, data: Glue) -> Tensor:
    """How far the value biases move in 200 steps over frozen weights of this precision."""
    module = LanguageTaskModule(decoder, data.task, tune="value", dtype=dtype, learning_rate=1e-4)
    moved = drift(module, data, PRECISIONS[dtype])
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    return moved


@pytest.fixture(scope="module")
def full(decoder: str, data: Glue) -> Tensor:
    return run("float32", decoder, data)


def drift(module: LanguageTaskModule, data: Glue, precision: Any) -> Tensor:
    """How far 200 steps of 1e-4 move value biases that start at 1, where neighbours in bf16 are 0.004 or more apart."""
    seed_everything(0, verbose=False)
    module.configure_model()
    biases = [p for n, p in module.named_parameters() if n.endswith("v_proj.bias")]
    assert len(biases) == LAYERS
    with torch.no_grad():
        for bias in biases:
            bias.fill_(1.0)
    # Validation comes between the steps: it must not end the gradients.
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(
        accelerator="cpu", max_steps=200, max_epochs=-1, precision=precision, check_val_every_n_epoch=10, **quiet
    )
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 200
    return torch.cat([bias.detach().float() - 1.0 for bias in biases])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "nf4"])
def test_small_steps_are_not_lost(dtype: str, full: Tensor, decoder: str, data: Glue) -> None:
    if dtype in ("int8", "nf4"):
        pytest.importorskip("bitsandbytes", reason="quantized weights need bitsandbytes")
    low = run(dtype, decoder, data)
    assert 0.002 < full.abs().mean() < 0.02
    assert low.abs().mean() == pytest.approx(full.abs().mean().item(), rel=0.1)


def test_a_half_precision_bias_would_stall(decoder: str, data: Glue) -> None:
    """The control: the same 200 steps on biases in bf16 leave them where they were."""

    class Stalling(LanguageTaskModule):
        def configure_model(self) -> None:
            super().configure_model()
            self.bfloat16()

    module = Stalling(decoder, data.task, tune="value", learning_rate=1e-4)
    assert not drift(module, data, "bf16-mixed").any()


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_only_the_linear_layers_are_quantized(dtype: str, decoder: str, backbone: str) -> None:
    pytest.importorskip("bitsandbytes", reason="quantized weights need bitsandbytes")
    from transformers import AutoModelForSequenceClassification

    model = load_model(AutoModelForSequenceClassification, backbone, dtype=dtype, num_labels=2)
    low = {name for name, p in model.named_parameters() if not p.is_floating_point()}
    assert len(low) == 6 * LAYERS
    assert {name.split(".")[1] for name in low} == {"encoder"}
    assert {p.dtype for p in model.parameters() if p.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "precision", "message"),
    [
        ({"dtype": "nf4"}, "bf16-mixed", "set trainer.precision to '32-true'"),
        ({"dtype": "bfloat16"}, "32-true", "Set precision to 'bf16-mixed'"),
        ({"dtype": "nf4", "random_init": True}, "32-true", "which random_init has none of"),
    ],
)
def test_what_cannot_meet_is_an_error(
    options: dict[str, Any], precision: str, message: str, decoder: str, data: Glue, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(BeftError, match=message):
        make_trainer(precision=precision).fit(
            LanguageTaskModule(decoder, data.task, tune="value", **options), datamodule=data
        )
