"""What is exported computes what was trained, in the programs it is exported for."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.bias import add_missing_biases
from beft_lightning.checkpoint import FINGERPRINT_KEY, MODEL_KEY, RNG_KEY, TRAINED_KEY
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS
from beft_lightning.errors import BackboneError, BeftError, CheckpointError, ExportError
from beft_lightning.export.export import FORMATS, export, load_trained, merge, peft_adapter
from beft_lightning.files import write_folder_atomically
from beft_lightning.models import load_model
from tests.tiny import LAYERS, VOCABULARY, WIDTH, logits, make_model, save_backbone

SST2, COPA = GLUE_TASKS["sst2"], PROMPT_TASKS["copa"]
HEADED, CAUSAL = AutoModelForSequenceClassification, AutoModelForCausalLM


def trained(module: LanguageTaskModule, path: Path) -> LanguageTaskModule:
    """The module with other values where it is trained, and its checkpoint at ``path``."""
    module.configure_model()
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    AdapterCheckpoint().on_save_checkpoint(None, module, content)  # type: ignore[arg-type]
    module.on_save_checkpoint(content)
    torch.save(content, path)
    return module.eval()


def peft_model(base: Any, folder: Path) -> nn.Module:
    peft = pytest.importorskip("peft")
    model: nn.Module = peft.PeftModel.from_pretrained(base, folder)
    return model


@pytest.mark.parametrize("tune", ["value", ["query", "value"], "value.1", "all", "head", "attention_norm"])
def test_a_merged_encoder_is_the_trained_one_to_the_bit(tune: str | list[str], backbone: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "deep" / "out", "hf")
    model = HEADED.from_pretrained(tmp_path / "deep" / "out")
    assert torch.equal(logits(model), logits(module.model))
    assert not torch.equal(logits(model), logits(load_model(HEADED, backbone, num_labels=2)))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "out")
    assert tokenizer("the film")["input_ids"] == AutoTokenizer.from_pretrained(backbone)("the film")["input_ids"]


@pytest.mark.parametrize("tune", ["low_rank_bias", "vera_bias", "scalar_bias", "random_mask", "random_rows", "full"])
def test_whatever_way_it_was_trained_the_merged_model_is_plain(tune: str, backbone: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    model = HEADED.from_pretrained(tmp_path / "out")
    assert not any("parametrizations" in name for name in model.state_dict())
    torch.testing.assert_close(logits(model), logits(module.model), rtol=1e-6, atol=1e-6)
    assert not torch.equal(logits(model), logits(load_model(HEADED, backbone, num_labels=2)))


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "bloom", "falcon biased"])
def test_a_trained_part_of_a_fused_bias_is_merged_into_the_whole(model_type: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", model_type, causal=True)
    module = trained(LanguageTaskModule(backbone, COPA, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert torch.equal(logits(CAUSAL.from_pretrained(tmp_path / "out")), logits(module.model))
    if model_type == "gpt2":  # Its layers are no nn.Linear.
        with pytest.raises(ExportError, match="use the format 'hf'"):
            export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
        return
    export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
    adapted = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / "peft")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["low_rank_bias", "scalar_bias"])
def test_peft_computes_a_reparametrised_bias(kind: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "llama", causal=True, biases=False)
    module = trained(LanguageTaskModule(backbone, COPA, tune=kind), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    adapted = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)


def test_an_adapter_of_pefts_is_not_exported(backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    trained(LanguageTaskModule(backbone, SST2, tune="lora"), tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match=r"an adapter of peft's \(lora\)"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf")


@pytest.mark.parametrize("form", ["hf", "peft"])
def test_a_prefix_is_not_exported(form: str, decoder: str, tmp_path: Path) -> None:
    trained(LanguageTaskModule(decoder, COPA, tune="prefix"), tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match="holds a prefix, which is no part of the model's own weights"):
        export(tmp_path / "a.ckpt", tmp_path / "out", form)


def test_a_merged_decoder_is_the_trained_one_to_the_bit(decoder: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(decoder, COPA, tune="value,attention_output"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert torch.equal(logits(CAUSAL.from_pretrained(tmp_path / "out")), logits(module.model))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize("tune", ["value", "query,mlp_out", "value.1"])
def test_peft_computes_what_was_trained_of_an_encoder(model_type: str, tune: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", model_type)
    module = trained(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    base = HEADED.from_pretrained(backbone, num_labels=2)
    untouched = logits(base)
    adapted = peft_model(base, tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)
    assert (logits(adapted) - untouched).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("model_type", "tune", "options"),
    [
        ("opt", "value", {}),
        ("opt", "attention_output.2", {}),
        ("llama", "value", {"biases": False}),
        ("llama", "query,key,mlp_out", {"biases": False}),
        ("gptj", "value", {}),
    ],
)
def test_peft_computes_what_was_trained_of_a_decoder(
    model_type: str, tune: str, options: dict[str, Any], tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "base", model_type, causal=True, **options)
    module = trained(LanguageTaskModule(backbone, COPA, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    base = CAUSAL.from_pretrained(backbone)
    untouched = logits(base)
    adapted = peft_model(base, tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)
    assert (logits(adapted) - untouched).abs().max() > 1e-2
    # What PEFT loads by itself is the same.
    again = pytest.importorskip("peft").AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again), logits(adapted))


@pytest.mark.parametrize(
    ("model_type", "tune", "peft", "hf"),
    [
        ("gpt_neox", "value", True, True),
        ("gpt_neox", "query,value.1", True, True),
        ("bloom", "value", True, True),
        ("falcon biased", "value", True, True),
        ("falcon", "value", True, True),  # all biases are added
        ("gpt2", "value", False, True),  # no linear layers, but Conv1D
        ("phi3", "value", True, False),
        ("mistral", "value", True, False),
        ("gpt_neo", "value", True, True),
        ("qwen3", "value", True, True),
    ],
)
def test_parts_of_fused_biases_leave_as_whole_ones(
    model_type: str, tune: str, peft: bool, hf: bool, tmp_path: Path
) -> None:
    backbone = save_backbone(tmp_path / "base", model_type, causal=True)
    module = trained(LanguageTaskModule(backbone, COPA, tune=tune), tmp_path / "a.ckpt")
    expected = logits(module.model)
    assert (expected - logits(CAUSAL.from_pretrained(backbone))).abs().max() > 1e-3
    for form, possible in (("peft", peft), ("hf", hf)):
        if not possible:
            with pytest.raises(ExportError, match="the format '(peft|hf)'"):
                export(tmp_path / "a.ckpt", tmp_path / form, form)
            continue
        export(tmp_path / "a.ckpt", tmp_path / form, form)
        if form == "hf":
            exported: nn.Module = CAUSAL.from_pretrained(tmp_path / form)
        else:
            exported = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / form)
        torch.testing.assert_close(logits(exported), expected, rtol=1e-5, atol=1e-5)


def test_a_multiple_choice_head_goes_into_the_adapter(backbone: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(backbone, SUPER_GLUE_TASKS["copa"], tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    adapted = peft_model(AutoModelForMultipleChoice.from_pretrained(backbone), tmp_path / "out")
    ids = torch.randint(4, len(VOCABULARY), (3, 2, 7), generator=torch.Generator().manual_seed(5))
    assert module.model is not None
    with torch.no_grad():
        expected = module.model(input_ids=ids).logits
        torch.testing.assert_close(adapted.eval()(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-6)


def test_the_adapter_file_is_the_one_of_peft(decoder: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trained(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "BEFT",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": decoder,
        "inference_mode": True,
        "target_modules": [f"model.decoder.layers.{i}.self_attn.v_proj" for i in range(LAYERS)],
        "modules_to_save": None,
    }
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert set(tensors) == {f"base_model.model.{path}.beft_bias" for path in config["target_modules"]}
    assert all(tensor.shape == (1, WIDTH) and tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.mark.parametrize("tune", ["attention_norm", "all", "head"])
def test_what_peft_cannot_express_is_an_error_that_names_the_other_format(
    tune: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = save_backbone(tmp_path / "base", "roberta")
    trained(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    command = ["export", "--checkpoint", str(tmp_path / "a.ckpt"), "--format", "peft", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "use the format 'hf'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tune", "switches"), [("value", (True, False)), ("mlp_in", (False, True)), ("key,mlp_out", (True, True))]
)
def test_only_the_switches_that_are_needed_are_set(tune: str, switches: tuple[bool, bool], tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "llama", causal=True, biases=False)
    module = trained(LanguageTaskModule(backbone, COPA, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    model = CAUSAL.from_pretrained(tmp_path / "out")
    assert (model.config.attention_bias, model.config.mlp_bias) == switches
    torch.testing.assert_close(logits(model), logits(module.model), rtol=1e-5, atol=1e-6)


def test_unused_candidates_need_no_place(tmp_path: Path) -> None:
    """The callback gives every candidate zero biases; only the winner's are exported."""
    backbone = save_backbone(tmp_path / "base", "gptj", causal=True)
    module = LanguageTaskModule(backbone, COPA, tune="value")
    module.configure_model()
    for bias in add_missing_biases(module, ["query", "key"]):
        bias.requires_grad_(False)
    trained(module, tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "hf", "hf")
    export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
    expected = logits(module.model)
    torch.testing.assert_close(logits(CAUSAL.from_pretrained(tmp_path / "hf")), expected, rtol=1e-5, atol=1e-5)
    adapted = peft_model(CAUSAL.from_pretrained(backbone), tmp_path / "peft")
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fitted", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [None, "float32", "bfloat16", "float16"])
def test_the_dtype_stored_is_the_one_asked_for(fitted: str, stored: str | None, backbone: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(backbone, SST2, tune="value", dtype=fitted), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf", dtype=stored)
    model = HEADED.from_pretrained(tmp_path / "out")
    dtype = getattr(torch, stored or fitted)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert module.model is not None
    kept = dict(module.model.named_parameters())
    assert all(torch.equal(p, kept[name].to(dtype)) for name, p in model.named_parameters())


def test_values_too_large_for_a_dtype_are_an_error(backbone: str, tmp_path: Path) -> None:
    module = LanguageTaskModule(backbone, SST2, tune="value")
    module.configure_model()
    assert module.model is not None
    module.model.get_parameter("bert.encoder.layer.1.attention.self.value.bias").data.fill_(1e6)
    trained(module, tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match=r"trained values of '.*1\.attention.self.value.bias' .* as float16"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_real_encoder_leaves_both_ways(minilm: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(minilm, SST2, tune="value"), tmp_path / "a.ckpt")
    expected = logits(module.model, 30000)
    export(tmp_path / "a.ckpt", tmp_path / "hf", "hf")
    assert torch.equal(logits(HEADED.from_pretrained(tmp_path / "hf"), 30000), expected)
    export(tmp_path / "a.ckpt", tmp_path / "peft", "peft")
    assert (tmp_path / "peft" / "adapter_model.safetensors").stat().st_size < 20_000
    adapted = peft_model(load_model(HEADED, minilm, num_labels=2), tmp_path / "peft")
    torch.testing.assert_close(logits(adapted, 30000), expected, rtol=1e-4, atol=1e-5)


def test_a_real_decoder_leaves_both_ways(
    smollm2: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = load_model(CAUSAL, **smollm2)  # once: it takes long
    asked = []

    def load(auto_class: Any, backbone: str, **options: Any) -> PreTrainedModel:
        asked.append((auto_class, backbone, options.pop("random_init", False), options))
        return copy.deepcopy(unpacked)

    monkeypatch.setattr("beft_lightning.tasks.module.load_model", load)
    monkeypatch.setattr("beft_lightning.export.export.load_model", load)
    module = trained(LanguageTaskModule(task=COPA, tune="value", **smollm2), tmp_path / "a.ckpt")
    expected = logits(module.model, 40000)
    record, base, values = load_trained(tmp_path / "a.ckpt")
    assert asked[0] == asked[1]
    write_folder_atomically(tmp_path / "peft", FORMATS["peft"](record, base, values, "float32"))
    adapted: Any = peft_model(base, tmp_path / "peft")
    torch.testing.assert_close(logits(adapted, 40000), expected, rtol=1e-4, atol=1e-4)
    write_folder_atomically(tmp_path / "hf", FORMATS["hf"](record, adapted.unload(), values, "float32"))
    merged = CAUSAL.from_pretrained(tmp_path / "hf")
    torch.testing.assert_close(logits(merged, 40000), expected, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("a film")["input_ids"]


def test_the_base_is_loaded_once_and_stays_as_it_is(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")
    before = {path.name: path.read_bytes() for path in Path(decoder).iterdir()}
    loads = []
    original = CAUSAL.from_pretrained

    def from_pretrained(*args: Any, **options: Any) -> Any:
        loads.append(args)
        return original(*args, **options)

    monkeypatch.setattr(CAUSAL, "from_pretrained", from_pretrained)
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert len(loads) == 1
    assert {path.name: path.read_bytes() for path in Path(decoder).iterdir()} == before


def test_a_failed_export_leaves_nothing_behind(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")

    def fail(model: Any, folder: Path, **options: Any) -> None:
        (folder / "model.safetensors").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("form", ["peft", "hf"])
def test_a_folder_that_holds_something_is_never_touched(form: str, decoder: str, tmp_path: Path) -> None:
    trained(LanguageTaskModule(decoder, COPA, tune="value"), tmp_path / "a.ckpt")
    (tmp_path / "out").mkdir()
    export(tmp_path / "a.ckpt", tmp_path / "out", form)  # an empty one is
    content = sorted((tmp_path / "out").iterdir())
    with pytest.raises(BeftError, match="out is not empty: give a new one"):
        export(tmp_path / "a.ckpt", tmp_path / "out", form)
    assert sorted((tmp_path / "out").iterdir()) == content
    with pytest.raises(BeftError, match=r"a.ckpt is a file: give a folder"):
        export(tmp_path / "a.ckpt", tmp_path / "a.ckpt", form)


def test_another_base_is_refused_and_a_moved_one_can_be_named(decoder: str, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    Path(decoder).rename(moved)
    try:
        trained(LanguageTaskModule(str(moved), COPA, tune="value"), tmp_path / "a.ckpt")
    finally:
        moved.rename(decoder)
    with pytest.raises(BackboneError, match="moved': cannot load the model"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf", backbone=decoder)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    torch.manual_seed(1)
    other = make_model("opt", causal=True, vocab_size=len(VOCABULARY) + 1)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="of the same shape: its frozen .* differs"):
        export(tmp_path / "a.ckpt", tmp_path / "out2", "hf", backbone=str(tmp_path / "other"))
    wider = save_backbone(tmp_path / "wider", "opt", causal=True, hidden_size=64, word_embed_proj_dim=64)
    with pytest.raises(CheckpointError, match=r"has shape \(32,\) there and \(64,\) here"):
        export(tmp_path / "a.ckpt", tmp_path / "out2", "hf", backbone=wider)


def test_checkpoints_that_cannot_be_exported_say_why(decoder: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(decoder, COPA, tune="value", random_init=True), tmp_path / "random.ckpt")
    with pytest.raises(ExportError, match="trained over random weights"):
        load_trained(tmp_path / "random.ckpt")
    torch.save({"state_dict": module.state_dict()}, tmp_path / "full.ckpt")
    with pytest.raises(CheckpointError, match="full.ckpt: a full checkpoint"):
        load_trained(tmp_path / "full.ckpt")
    records = {TRAINED_KEY: ["a"], FINGERPRINT_KEY: {}, RNG_KEY: []}
    torch.save({"state_dict": {"a": torch.zeros(1)}, **records}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="does not say which backbone .* call `merge` or `peft_adapter`"):
        load_trained(tmp_path / "foreign.ckpt")
    content = torch.load(tmp_path / "random.ckpt", weights_only=True)
    content[MODEL_KEY] |= {"random_init": False, "auto_class": "pipeline"}
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="unknown class of model, 'pipeline'"):
        load_trained(tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_trained(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx"], "invalid choice: 'onnx'"),
        (["--format", "hf", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["--format", "peft", "--dtype", "float16"], "always fp32"),
        (["--format", "hf", "--config", "README.md"], "unrecognized arguments: --config"),
        ([], "required: --format"),
    ],
)
def test_wrong_options_are_one_message(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.ckpt").touch()
    assert main(["export", "--checkpoint", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_module_of_ones_own_is_merged_and_adapted_from_python() -> None:
    base = make_model("bert", num_labels=2).eval()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.get_parameter("bert.encoder.layer.0.attention.self.value.bias").add_(1.0)
    name = "bert.encoder.layer.0.attention.self.value"
    values = {f"{name}.bias": tuned.get_parameter(f"{name}.bias").detach()}
    config, tensors = peft_adapter(base, values)
    assert config == {"target_modules": [name], "modules_to_save": None}
    torch.testing.assert_close(tensors[f"base_model.model.{name}.beft_bias"], torch.ones(1, WIDTH))
    merge(base, values)
    assert torch.equal(logits(base), logits(tuned))
