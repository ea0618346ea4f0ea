"""Models that transformers composes of others: terms of all are found, one stack after the other."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    EncoderDecoderModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    Qwen3VLConfig,
    Qwen3VLModel,
    SamConfig,
    SamModel,
    ViTConfig,
    ViTModel,
)

from beft_lightning import AdapterCheckpoint, BiasSelectionCallback
from beft_lightning.adapter import load_adapter
from beft_lightning.bias import add_missing_biases, find_bias_terms, freeze_except
from beft_lightning.bias.composite import found_by_model
from beft_lightning.bias.found import found_record, restore_found
from beft_lightning.bias.structure import fit_structure
from beft_lightning.errors import ArchitectureError
from tests.tiny import VOCABULARY, WIDTH, token_batches

_SHAPE = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": len(VOCABULARY)}
_CROSS = {"is_decoder": True, "add_cross_attention": True}


def composed(decoder: str) -> EncoderDecoderModel:
    """A BERT of two layers, of the table, before a decoder of three."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model("bert", num_hidden_layers=2, **_SHAPE))
    options: dict[str, Any] = {"n_embd": WIDTH, "n_head": 4, "n_layer": 3, "vocab_size": len(VOCABULARY)}
    if decoder != "gpt2":
        options = {"num_hidden_layers": 3, **_SHAPE}
    model = EncoderDecoderModel(
        encoder=encoder,
        decoder=AutoModelForCausalLM.from_config(AutoConfig.for_model(decoder, **_CROSS, **options)),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)
    return model


@pytest.mark.parametrize(
    ("decoder", "value", "cross_value"),
    [
        (
            "bert",
            "bert.encoder.layer.0.attention.self.value.bias",
            "bert.encoder.layer.2.crossattention.self.value.bias",
        ),
        ("gpt2", "transformer.h.0.attn.c_attn.bias", "transformer.h.2.crossattention.c_attn.bias"),
        # Not in the table.
        (
            "bert-generation",
            "bert.encoder.layer.0.attention.self.value.bias",
            "bert.encoder.layer.2.crossattention.self.value.bias",
        ),
    ],
)
def test_terms_of_both_and_of_each(decoder: str, value: str, cross_value: str) -> None:
    model = composed(decoder)
    terms = find_bias_terms(model)
    assert {t: len(terms[t]) for t in ("query", "key", "value", "cross_query", "cross_key", "cross_value")} == {
        **dict.fromkeys(("query", "key", "value"), 5),
        **dict.fromkeys(("cross_query", "cross_key", "cross_value"), 3),
    }
    # By behaviour: marked by writing, the value bias is the last third of GPT-2's fused one.
    with torch.no_grad():
        terms["value"][2].fill_(7)
        terms["cross_value"][2].fill_(8)
    for name, mark in ((value, 7), (cross_value, 8)):
        assert (model.get_parameter(f"decoder.{name}")[-WIDTH:] == mark).all()
    # GPT-2's fused cross attention holds key and value, of which each is half.
    apart = find_bias_terms(model, scope=["encoder", "decoder"])
    assert "encoder.cross_value" not in apart
    assert {tower: len(apart[f"{tower}.value"]) for tower in ("encoder", "decoder")} == {"encoder": 2, "decoder": 3}
    assert len(freeze_except(model, ["value"], scope="encoder")) == 2
    assert len(freeze_except(model, ["decoder.cross_value"], scope=["encoder", "decoder"])) == 3


class Summarizer(LightningModule):
    """Somebody's module that writes a text back."""

    def __init__(self) -> None:
        super().__init__()
        self.net = composed("bert")

    def forward(self, ids: Tensor) -> Any:
        return self.net(input_ids=ids, decoder_input_ids=ids, labels=ids)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss: Tensor = self(batch[0]).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def test_a_fit_selects_among_self_and_cross_attention_and_loads(make_trainer: Any, tmp_path: Any) -> None:
    module, fresh = Summarizer(), Summarizer()
    callback = BiasSelectionCallback("gradient", ["value", "key", "cross_value", "cross_key"], head="none", batches=2)
    trainer = make_trainer(callbacks=[callback, AdapterCheckpoint()])
    seed_everything(1, verbose=False)
    trainer.fit(module, token_batches(8))
    assert callback.scores is not None
    entries = callback.scores.terms
    assert {term: (len(entry.layers), entry.inert) for term, entry in entries.items()} == {
        "value": (5, False), "key": (5, True), "cross_value": (3, False), "cross_key": (3, True),
    }  # fmt: skip
    before = dict(fresh.named_parameters())
    moved = [name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == callback.trained
    trainer.save_checkpoint(tmp_path / "fit.ckpt")
    load_adapter(fresh, tmp_path / "fit.ckpt")
    ids = torch.arange(4, 12)[None]
    assert torch.equal(fresh.eval()(ids).logits, module.eval()(ids).logits)


def test_what_a_twin_of_the_whole_does_not_show_is_watched_alone() -> None:
    """Qwen3-VL's made-up images and texts do not fit together."""
    with torch.device("meta"):
        model: Any = Qwen3VLModel(Qwen3VLConfig())
    assert set(found_by_model(model)) == {"visual", "language_model"}
    depths = model.config.vision_config.depth, model.config.text_config.num_hidden_layers
    assert len(find_bias_terms(model)["value"]) == depths[0]
    assert len(add_missing_biases(model, ["value"])) == depths[1]
    assert len(find_bias_terms(model)["value"]) == sum(depths)
    assert freeze_except(model, ["value"], scope="language_model") == [
        f"language_model.layers.{layer}.self_attn.v_proj.bias" for layer in range(depths[1])
    ]


class Reader(GPT2Model):
    """A model whose layers have no names that tell a query, and whose inputs cannot be made up."""

    def forward(self, secret: Tensor, **inputs: Any) -> Any:
        return super().forward(**inputs)


class Looking(PreTrainedModel):
    """A composed model: the part that can be watched alone, and one that cannot."""

    config_class = ViTConfig

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.eye = ViTModel(config)
        self.reader = Reader(GPT2Config(n_embd=WIDTH, n_head=4, n_layer=2, vocab_size=99))
        self.post_init()

    def forward(self, pixel_values: Tensor) -> Any:
        return self.eye(pixel_values)


def test_a_part_that_nothing_reaches_is_not_left_out_in_silence() -> None:
    sizes: dict[str, Any] = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_hidden_layers": 2}
    model = Looking(ViTConfig(hidden_size=WIDTH, num_attention_heads=4, intermediate_size=48, **sizes))
    with pytest.raises(ArchitectureError, match=r"(?s)no attention was seen in 'reader' \(Reader\).*`scope`: eye\."):
        find_bias_terms(model)
    assert len(find_bias_terms(model, scope="eye")["value"]) == 2


def masks() -> SamModel:
    """A model with attention in its mask decoder that made-up inputs do not reach, and a fused encoder."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "num_hidden_layers": 2, "image_size": 64, "output_channels": 16, "global_attn_indexes": [1]}
    prompts = {"hidden_size": 16, "image_size": 64}
    return SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=sizes)).eval()


def test_a_part_can_be_tuned_where_the_whole_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, fresh = masks(), masks()
    with pytest.raises(ArchitectureError, match="(?s)'mask_decoder.*tune one of the models in it, .*: vision_encoder"):
        find_bias_terms(model)
    (first, last) = freeze_except(model, ["value"], scope="vision_encoder")
    assert first == "vision_encoder.layers.0.attn.qkv.parametrizations.bias.original2"
    with torch.no_grad():
        model.get_parameter(first).fill_(1.0)
        model.get_parameter(last).fill_(2.0)
    # A checkpoint of it divides the bias of another model as well, which is not watched for that.
    monkeypatch.setattr("beft_lightning.bias.lookup.architectures_of_model", None)
    restore_found(fresh, found_record(model))
    fit_structure(fresh, [name for name, _ in model.named_parameters()])
    fresh.load_state_dict(model.state_dict())
    assert [bias.unique().item() for bias in find_bias_terms(fresh, scope="vision_encoder")["value"].values()] == [1, 2]
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(fresh.get_image_embeddings(image), model.get_image_embeddings(image))
