"""Vision, speech and encoder-decoder models in LightningModules of somebody else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModel, PreTrainedModel

from beft_lightning import BiasSelectionCallback
from tests.media import SPEECH, VISION

_BART = {
    "d_model": 16,
    "vocab_size": 12,
    "pad_token_id": 1,
    "max_position_embeddings": 8,
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 24 for part in ("encoder", "decoder")},
}
_TOKENS = {"vocab_size": 16, "bos_token_id": 1, "eos_token_id": 15, "pad_token_id": 0}
_TOWERS = {**VISION["clip"], "text_config": {**VISION["clip"]["text_config"], **_TOKENS}}
_WHISPER = {**SPEECH["whisper"], **_TOKENS, "decoder_start_token_id": 1}
_IMAGE = (3, 16, 16)
#: Type -> its configuration, and the shapes of its inputs.
TYPES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "whisper": (_WHISPER, {"input_features": (80, 100), "decoder_input_ids": (5,)}),
    "bart": (_BART, {"input_ids": (5,)}),
    "clip": (_TOWERS, {"pixel_values": _IMAGE, "input_ids": (5,)}),
    "siglip": (_TOWERS, {"pixel_values": _IMAGE, "input_ids": (5,)}),
    "vit": (VISION["vit"], {"pixel_values": _IMAGE}),
    "wav2vec2": (SPEECH["wav2vec2"], {"input_values": (2400,)}),
}
TOWERS = ("clip", "siglip")


def examples(shapes: dict[str, tuple[int, ...]], count: int = 40) -> Any:
    random = torch.Generator().manual_seed(3)
    return [
        {
            name: torch.randint(2, 8, shape, generator=random)
            if name.endswith("ids")
            else torch.randn(shape, generator=random)
            for name, shape in shapes.items()
        }
        | {"labels": torch.tensor(number % 2)}
        for number in range(count)
    ]


class Foreign(LightningModule):
    """Classifies what a model makes of its inputs; models with two towers learn which inputs belong together."""

    def __init__(self, model_type: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **TYPES[model_type][0])
        self.net: PreTrainedModel = AutoModel.from_config(config)
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.02)  # so that the projection has something to compare with
        self.two_towers = model_type in TOWERS
        self.head = nn.Identity() if self.two_towers else nn.Linear(16, 2)
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        labels = batch.pop("labels")
        output: Any = self.net(**batch)
        if self.two_towers:
            loss = cross_entropy(output.logits_per_image, torch.arange(len(labels)))
        else:
            loss = cross_entropy(self.head(output[0].mean(dim=1)), labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def fit(model_type: str, approach: str, term: str, make_trainer: Callable[..., Trainer]) -> tuple[Foreign, Any]:
    seed_everything(7, verbose=False)
    module = Foreign(model_type)
    options: dict[str, Any] = {"scope": "vision_model"} if model_type in TOWERS else {"head": ["head.*"]}
    selection = BiasSelectionCallback(approach, [term], batches=2, **options)
    trainer = make_trainer(callbacks=[selection], max_epochs=1)
    trainer.fit(module, DataLoader(examples(TYPES[model_type][1]), batch_size=4, shuffle=True))
    return module, selection


@pytest.mark.parametrize("model_type", TYPES)
def test_ten_steps_move_the_value_bias_and_the_head_as_if_nothing_had_been_scored(
    model_type: str, make_trainer: Callable[..., Trainer]
) -> None:
    (scored, selection), (fixed, _) = (fit(model_type, each, "value", make_trainer) for each in ("projection", "fixed"))
    assert selection.selected == ["value"]
    assert selection.scores.steps == 2
    assert scored.losses[-10:] == fixed.losses
    before, after, expected = Foreign(model_type).state_dict(), scored.state_dict(), fixed.state_dict()
    assert all(torch.equal(after[name], expected[name]) for name in expected)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(selection.trained)
    head = {name for name in moved if name.startswith("head.")}
    assert head == (set() if model_type in TOWERS else {"head.weight", "head.bias"})
    assert moved - head == {name for name in before if name.endswith(("v_proj.bias", "value.bias")) and _is_self(name)}


def _is_self(name: str) -> bool:
    """Whether an attention is self attention, and, in a model with two towers, that of the images."""
    return "encoder_attn" not in name and "text_model" not in name
