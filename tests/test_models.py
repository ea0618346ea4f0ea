"""Loading backbones."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
)

from beft_lightning.errors import BackboneError
from beft_lightning.models import load_model, load_tokenizer
from beft_lightning.tuning import set_up_tuning
from beft_lightning.tuning.terms import TermTuning
from tests.tiny import save_backbone, token_ids

HEADED = AutoModelForSequenceClassification


def test_a_loaded_model_is_in_training_mode_with_its_weights(backbone: str) -> None:
    model = load_model(HEADED, backbone, num_labels=3)
    assert all(module.training for module in model.modules())
    assert model.config.num_labels == 3
    pretrained = AutoModel.from_pretrained(backbone).state_dict()
    loaded = model.base_model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in pretrained.items())


def test_random_init_has_the_shape_but_not_the_weights(backbone: str) -> None:
    torch.manual_seed(123)  # not the seed that made the backbone, whatever ran before
    model, loaded = load_model(HEADED, backbone, random_init=True), load_model(HEADED, backbone)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in loaded.named_parameters()}
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(dict(model.named_parameters())[name], dict(loaded.named_parameters())[name])


@pytest.mark.parametrize("random_init", [True, False])
def test_biases_and_head_stay_fp32_over_half_precision_weights(backbone: str, random_init: bool) -> None:
    model = load_model(HEADED, backbone, dtype="bfloat16", random_init=random_init)
    for name, parameter in model.named_parameters():
        kept = name.endswith("bias") or "LayerNorm" in name or name.startswith("classifier")
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name


def test_a_head_for_other_labels_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "model", headed=True, num_labels=5)
    model = load_model(HEADED, folder, num_labels=2)
    saved = HEADED.from_pretrained(folder)
    assert model.get_parameter("classifier.weight").shape == (2, 32)
    torch.testing.assert_close(dict(model.base_model.state_dict()), dict(saved.base_model.state_dict()), rtol=0, atol=0)
    # With the right number of labels, the checkpoint's own head is kept.
    kept = load_model(HEADED, folder, num_labels=5)
    assert torch.equal(kept.get_parameter("classifier.weight"), saved.classifier.weight)


def test_a_checkpoint_of_another_kind_is_an_error(tmp_path: Path) -> None:
    """Weights that match no layer would silently leave a random model."""
    folder = Path(save_backbone(tmp_path / "model", num_hidden_layers=2))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(BackboneError, match=r"no pretrained weights for .* tensors .*'bert.encoder.layer.2"):
        load_model(HEADED, str(folder))


@pytest.mark.parametrize("backbone", ["no/such-model", "."])
def test_what_cannot_be_loaded_is_an_error_that_says_what_is_valid(backbone: str) -> None:
    with pytest.raises(BackboneError, match="cannot load the model .*Give a hub id"):
        load_model(HEADED, backbone)
    with pytest.raises(BackboneError, match="cannot load the tokenizer .*Give a hub id"):
        load_tokenizer(backbone)


def test_an_unknown_dtype_is_an_error(backbone: str) -> None:
    with pytest.raises(BackboneError, match="'int3' is unknown; choose one of: float32, bfloat16, float16"):
        load_model(HEADED, backbone, dtype="int3")


@pytest.mark.parametrize(
    ("model_type", "auto_class"),
    [("t5", AutoModelForCausalLM), ("t5", AutoModelForMultipleChoice), ("distilbert", AutoModelForCausalLM)],
)
def test_a_type_without_the_tasks_head_is_one_clear_error(model_type: str, auto_class: Any, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path, model_type)
    message = f"no {auto_class.__name__} of type '{model_type}'. Prompted tasks need a causal language model"
    for random_init in (False, True):
        with pytest.raises(BackboneError, match=message):
            load_model(auto_class, folder, random_init=random_init)


def test_parts_of_a_fused_bias_train_in_fp32_over_half_precision_weights(tmp_path: Path) -> None:
    model = load_model(HEADED, save_backbone(tmp_path, "gpt2"), dtype="bfloat16")
    set_up_tuning(model, TermTuning(("value",)))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=token_ids(model), labels=torch.tensor([0, 1])).loss
    loss.backward()
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(trained)


@pytest.mark.parametrize("random_init", [False, True])
def test_code_of_a_backbone_is_never_run(
    random_init: bool, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where somebody is there to answer transformers' question."""
    folder = tmp_path / "model"
    shutil.copytree(backbone, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nEvil = Config = Tokenizer = None\n")
    for name, entries in (
        ("config.json", {"AutoConfig": "evil.Config", HEADED.__name__: "evil.Evil"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Tokenizer", None]}),
    ):
        content = json.loads((folder / name).read_text())
        content |= {"auto_map": entries, "model_type": "evil", "tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    with pytest.raises(BackboneError, match="cannot load the model"):
        load_model(HEADED, str(folder), random_init=random_init)
    with pytest.raises(BackboneError, match="cannot load the tokenizer"):
        load_tokenizer(str(folder))
    assert not (tmp_path / "pwned").exists()


def test_pickled_weights_run_no_code(backbone: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(backbone, folder)
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"bert.embeddings.word_embeddings.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="cannot load the model"):
        load_model(HEADED, str(folder))
    assert not (tmp_path / "pwned").exists()
