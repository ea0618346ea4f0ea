"""A prefix is what a prompt leaves behind: keys and values, in every layer. (How options score behind one:
``test_option_scores.py``.)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, StaticCache

from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.checkpoint import TRAINED_KEY, read_checkpoint
from beft_lightning.data import Glue
from beft_lightning.errors import BeftError
from beft_lightning.models import load_model
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.tuning import set_up_tuning
from beft_lightning.tuning.prefix import Prefix, PrefixTuning, activations, add_prefix
from beft_lightning.tuning.terms import HeadTuning
from tests.tiny import LAYERS, MODEL_FORMS, MODEL_TYPES, make_model, token_ids

PROMPT = torch.tensor([[11, 12, 13, 14]])
TEXT = torch.tensor([[5, 6, 7, 8, 9], [15, 16, 17, 18, 19]])
ENCODERS = ("bert", "electra", "roberta", "xlm-roberta")
DECODERS = (
    *("bloom", "falcon", "gemma", "gemma2", "gpt2", "gpt_neox", "gptj", "llama", "mistral", "olmo2", "opt", "phi"),
    *("phi3", "qwen2", "qwen3"),
)
FORMS = [form for form in MODEL_FORMS if form.split()[0] in (*ENCODERS, *DECODERS)]


def with_prefix(model: PreTrainedModel, tokens: int = 3) -> Prefix:
    """A prefix that is far from anything that the model computes by itself."""
    prefix = add_prefix(model, tokens)
    with torch.no_grad():
        prefix.key_values.add_(torch.randn(prefix.key_values.shape, generator=torch.Generator().manual_seed(1)))
    return prefix


def whole_mask(encoder: bool, prompt: int, text: int) -> Tensor:
    """Causal for decoders; in encoders, the text sees all, and the prompt itself."""
    columns = prompt + text
    if not encoder:
        return torch.ones(len(TEXT), columns, dtype=torch.long)
    visible = torch.ones(columns, columns, dtype=torch.bool)
    visible[:prompt, prompt:] = False
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(len(TEXT), 1, columns, columns).masked_fill(~visible, lowest)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_the_prefix_of_a_prompt_is_the_prompt(form: str) -> None:
    """Its keys and values as a prefix, and the text sees what it sees behind the prompt, at the text's positions."""
    model = make_model(form, causal=form.split()[0] in DECODERS).eval()
    base = getattr(model.base_model, "decoder", model.base_model)
    # RoBERTa's positions begin behind the number of its padding token.
    first = 1 if "roberta" in form else 0
    positions = torch.cat([torch.arange(PROMPT.shape[1]), torch.arange(TEXT.shape[1])])[None] + first
    joint = torch.cat([PROMPT.expand(len(TEXT), -1), TEXT], dim=1)
    options: dict[str, Any] = {} if form == "bloom" else {"position_ids": positions}
    mask = whole_mask(form.split()[0] in ENCODERS, PROMPT.shape[1], TEXT.shape[1])
    expected = base(input_ids=joint, attention_mask=mask, **options).last_hidden_state[:, PROMPT.shape[1] :]
    before = base(input_ids=TEXT).last_hidden_state
    of_prompt = activations(base, PROMPT)
    prefix = add_prefix(model, PROMPT.shape[1])
    prefix.key_values.copy_(of_prompt)
    hidden = base(input_ids=TEXT).last_hidden_state
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
    assert (hidden - before).abs().max() > 1e-4
    assert prefix.key_values.shape[:2] == (LAYERS, 2)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["bert", "roberta", "opt", "gpt2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model_type: str, side: str) -> None:
    """Positions are left to the model, where it counts them in a way that allows padding there."""
    model = make_model(model_type, causal=model_type in DECODERS).eval()
    with_prefix(model)
    model.double()
    base = model.base_model
    ids, mask = torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 5, dtype=torch.long)
    ids[0], mask[0] = TEXT[0], 1
    place = slice(2, 5) if side == "left" else slice(0, 3)
    ids[1, place], mask[1, place] = TEXT[1, :3], 1
    options: dict[str, Any] = {}
    if side == "left" and model_type not in ("opt", "roberta"):
        options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    padded = base(input_ids=ids, attention_mask=mask, **options).last_hidden_state[1, place]
    alone = base(input_ids=TEXT[1:, :3]).last_hidden_state[0]
    # RMSNorm and eager softmax round to fp32 whatever the model's precision.
    torch.testing.assert_close(padded, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "opt", "gpt2", "llama"])
def test_the_prefix_and_the_head_are_trained_and_nothing_else_moves(model_type: str) -> None:
    model = make_model(model_type)
    set_up_tuning(model, PrefixTuning(num_virtual_tokens=2))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    prefixes = [name for name in trained if name.endswith(".prefix.key_values")]
    untuned = make_model(model_type)
    set_up_tuning(untuned, HeadTuning())
    assert trained.keys() - prefixes == {name for name, p in untuned.named_parameters() if p.requires_grad}
    (name,) = prefixes
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = ReferenceAdam(trained.values(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=token_ids(model)).logits.logsumexp(-1).square().sum().backward()
        optimizer.step()
    parameters = dict(model.named_parameters())
    assert {n for n, value in before.items() if not torch.equal(parameters[n], value)} == set(trained)
    # Every layer, and both keys and values.
    moved = (parameters[name] - before[name]).abs().amax(dim=(2, 3, 4))
    assert moved.shape == (LAYERS, 2)
    assert (moved > 1e-4).all()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("form", [form for form in FORMS if form.split()[0] in DECODERS])
def test_generating_equals_running_the_model_again_for_each_token(form: str, use_cache: bool) -> None:
    """Without a cache, too: some models then hand one back all the same."""
    model: Any = make_model(form, causal=True, eos_token_id=3).eval()
    with_prefix(model)
    # The second prompt is two tokens shorter.
    ids = TEXT.clone()
    ids[1] = torch.tensor([0, 0, 15, 16, 17])
    mask = (ids != 0).long()
    cached = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    for row, prompt in enumerate([ids[0], ids[1, 2:]]):
        for step, logits in enumerate(cached.logits):
            text = torch.cat([prompt, cached.sequences[row, ids.shape[1] : ids.shape[1] + step]])
            with torch.no_grad():
                again = model(input_ids=text[None], use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[row], again, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["opt", "gpt2", "llama"])
def test_a_text_in_two_parts_is_the_text(model_type: str) -> None:
    """The second part follows with the cache of the first, and nothing says where it stands."""
    model: Any = make_model(model_type, causal=True).eval()
    with_prefix(model)
    first = model(input_ids=TEXT[:, :3], use_cache=True)
    second = model(input_ids=TEXT[:, 3:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, model(input_ids=TEXT).logits[:, 3:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_planned_prefix_has_the_real_ones_shape(form: str, half: bool) -> None:
    causal = form.split()[0] in DECODERS
    expected = add_prefix(make_model(form, causal=causal)).key_values.shape
    with torch.device("meta"):
        model = make_model(form, causal=causal)
        assert add_prefix(model.bfloat16() if half else model).key_values.shape == expected


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_prefix_stands_before_quantized_weights(dtype: str, decoder: str) -> None:
    pytest.importorskip("bitsandbytes", reason="quantized weights need bitsandbytes")
    model: Any = load_model(AutoModelForCausalLM, decoder, dtype=dtype)
    set_up_tuning(model, PrefixTuning())
    model(input_ids=TEXT).logits.square().sum().backward()
    gradient = model.get_parameter("model.decoder.prefix.key_values").grad
    assert gradient.abs().amax(dim=(2, 3, 4)).min() > 0


@pytest.mark.parametrize("model_type", sorted({*MODEL_TYPES} - {*ENCODERS, *DECODERS}))
def test_other_models_are_refused(model_type: str) -> None:
    model = make_model(model_type)
    with pytest.raises(BeftError, match=f"cannot train a {model_type}, whose attention is not known to take a prefix"):
        set_up_tuning(model, PrefixTuning())


@pytest.mark.parametrize(
    ("model_type", "tokens"), [("opt", 0), ("opt", 65), ("mistral", 17), ("roberta", 64), ("opt", "4")]
)
def test_a_prefix_needs_a_length_that_fits(model_type: str, tokens: Any) -> None:
    options: dict[str, Any] = {"sliding_window": 16} if model_type == "mistral" else {}
    model = make_model(model_type, **options)
    with pytest.raises(BeftError, match="num_virtual_tokens must be a whole number from 1 to"):
        set_up_tuning(model, PrefixTuning(num_virtual_tokens=tokens))


def test_a_prefix_stays_within_the_sliding_window() -> None:
    model: Any = make_model("mistral", causal=True, sliding_window=8).eval()
    with_prefix(model, 3)
    model(input_ids=TEXT)
    with pytest.raises(BeftError, match="have 9 tokens together, and the model's sliding window sees 8"):
        model.generate(TEXT, attention_mask=torch.ones_like(TEXT), max_new_tokens=5, do_sample=False)


@pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])
def test_activation_checkpointing_would_drop_the_prefix(model_type: str) -> None:
    model = make_model(model_type)
    add_prefix(model)
    model.activation_checkpointing_enable()
    with pytest.raises(BeftError, match="activation_checkpointing drops the cache"):
        model(input_ids=TEXT)


def test_checkpointing_and_a_prefix_are_refused_together(sst2_dir: str, decoder: str) -> None:
    task = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir).task
    with pytest.raises(BeftError, match="which activation_checkpointing drops: leave out one"):
        LanguageTaskModule(decoder, task, tune="prefix", activation_checkpointing=True)


def test_embedded_inputs_are_refused() -> None:
    model: Any = make_model("llama", causal=True).eval()
    add_prefix(model)
    with pytest.raises(BeftError, match="give the model input_ids"):
        model(inputs_embeds=model.get_input_embeddings()(TEXT))


def test_other_caches_are_refused() -> None:
    model: Any = make_model("llama", causal=True).eval()
    add_prefix(model)
    with pytest.raises(BeftError, match="not in a StaticCache"):
        model(input_ids=TEXT, past_key_values=StaticCache(config=model.config, max_cache_len=32))


def test_the_seed_draws_the_first_values_and_no_other_random_number() -> None:
    def drawn(seed: int) -> Tensor:
        model = make_model("bert", hidden_dropout_prob=0.5)
        torch.manual_seed(7)
        prefix = add_prefix(model, seed=seed)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(7)))
        assert all(module.training for module in model.modules())
        return prefix.key_values.detach()

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_prefix_is_fp32_over_a_base_in_half_precision(dtype: str, sst2_dir: str, decoder: str) -> None:
    data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, batch_size=8)
    module = LanguageTaskModule(decoder, data.task, tune="prefix", dtype=dtype)
    module.configure_model()
    assert module.model is not None
    (key_values,) = (p for p in module.parameters() if p.requires_grad)
    assert key_values.dtype == torch.float32
    assert key_values.isfinite().all()
    with torch.autocast("cpu", getattr(torch, dtype)):
        module.model(input_ids=TEXT).logits.float().square().sum().backward()
    assert key_values.grad is not None
    assert key_values.grad.abs().amax(dim=(2, 3, 4)).min() > 0


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_checkpoint_holds_the_prefix_and_goes_on_exactly(
    kind: str, backbone: str, decoder: str, sst2_dir: str, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    name = decoder if kind == "decoder" else backbone

    def fit(epochs: int, folder: str, resume: Path | None = None, seed: int = 4) -> Any:
        seed_everything(seed, verbose=False)
        data = Glue(name, task="sst2", prompt=kind == "decoder", data_dir=sst2_dir, batch_size=8, seed=0)
        module = LanguageTaskModule(name, data.task, tune="prefix", tune_options={"seed": seed}, learning_rate=1e-2)
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        trainer = make_trainer(callbacks=[saving, AdapterCheckpoint()], max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(module, datamodule=data, ckpt_path=resume)
        return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}, trainer

    straight, trainer = fit(2, "a")
    fit(1, "b")
    # Another seed, and another first prefix, leave no trace in the resumed run.
    resumed, again = fit(2, "c", resume=tmp_path / "b" / "last.ckpt", seed=5)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[n], resumed[n]) for n in straight)
    assert (
        trainer.callback_metrics["val_loss" if kind == "encoder" else "val_accuracy"]
        == (again.callback_metrics["val_loss" if kind == "encoder" else "val_accuracy"])
    )
    checkpoint = read_checkpoint(tmp_path / "a" / "last.ckpt")
    assert set(checkpoint["state_dict"]) == set(checkpoint[TRAINED_KEY]) == set(straight)


def test_weights_that_are_sharded_as_they_are_loaded_have_no_activations() -> None:
    """ZeRO-3 leaves empty tensors in their places."""
    model = make_model("opt")
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    with pytest.raises(BeftError, match="weights are sharded as they are loaded"):
        set_up_tuning(model, PrefixTuning())
