"""Whatever a fit or an export has written predicts as the fitted module does."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import beft_lightning
from beft_lightning import LanguageTaskModule
from beft_lightning.checkpoint import FINGERPRINT_KEY, MODEL_KEY, RNG_KEY, TRAINED_KEY
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS, Task, TaskRecord
from beft_lightning.data.free_text_task import FreeTextTask
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.export import export
from beft_lightning.loading import load
from tests.export.fits import fitted
from tests.tiny import save_backbone

SST2, PROMPTED = GLUE_TASKS["sst2"], replace(PROMPT_TASKS["sst2"], max_length=40)
TEXTS = ["the film was good", "the plot", "a very very bad film with a dull story"]


def probabilities(predictor: Any, texts: Any = TEXTS) -> torch.Tensor:
    return torch.tensor([list(row["probabilities"].values()) for row in predictor.predict(texts)])


def expected(module: LanguageTaskModule) -> torch.Tensor:
    """The probabilities of the module itself, one text at a time."""
    from beft_lightning.data.preprocessors import PREPROCESSORS, EncodingOptions
    from beft_lightning.models import load_tokenizer

    task, objective, model = module.task, module.objective, module.model
    assert objective is not None
    assert model is not None
    preprocessor = PREPROCESSORS[task.kind](task, load_tokenizer(module.backbone), EncodingOptions(task.max_length))
    rows = []
    for text in TEXTS:
        examples = task.numbered([example for _, example in task.parse_input({"sentence": text}, "")])
        with torch.no_grad():
            (row,) = objective.rows(model, preprocessor.collate_evaluation(preprocessor.encode(examples)))
        rows.append(list(row["probabilities"].values()))
    return torch.tensor(rows)


@pytest.mark.parametrize(
    "task",
    [replace(SST2, max_length=6), PROMPTED, replace(PROMPTED, calibrate=True)],
    ids=["texts", "prompts", "calibrated"],
)
def test_a_checkpoint_and_its_exports_predict_alike(
    task: TaskRecord, backbone: str, decoder: str, tmp_path: Path
) -> None:
    base = backbone if task.adds_head else decoder
    module = fitted(LanguageTaskModule(base, task, tune="value"), tmp_path / "a.ckpt")
    for form in ("hf", "peft"):
        export(tmp_path / "a.ckpt", tmp_path / form, form)
    assert json.loads((tmp_path / "hf" / "beft_task.json").read_text())["task"]["text"] == ["sentence"]
    for path in ("a.ckpt", "hf", "peft"):
        predictor = load(tmp_path / path)
        torch.testing.assert_close(probabilities(predictor), expected(module), rtol=1e-5, atol=1e-6)
        assert predictor.predict(TEXTS)[0].keys() == {"sentence", "label", "probabilities"}
        assert not task.adds_head or predictor.model.config.id2label == {0: "negative", 1: "positive"}
        assert predictor.task.max_length == task.max_length


def test_what_was_evaluated_behind_demonstrations_does_not_predict_without(decoder: str, tmp_path: Path) -> None:
    task = PROMPTED.with_baselines(2, calibrate=False)
    fitted(LanguageTaskModule(decoder, task, tune="value"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "hf", "hf")
    for path in ("a.ckpt", "hf"):
        with pytest.raises(CheckpointError, match=f"{path}: task 'sst2' is asked behind 2 demonstrations"):
            load(tmp_path / path)


@pytest.mark.parametrize(
    ("model_type", "tune"),
    [
        ("gpt2", "value"),  # a part of a fused bias
        ("mistral", "mlp_in"),  # biases that no plain model has a place for
        ("opt", "low_rank_bias"),
        ("opt", "random_mask"),
        ("opt", "prefix"),
        ("opt", "lora"),
        ("llama", "ia3"),
    ],
)
def test_every_method_of_training_predicts(model_type: str, tune: str, tmp_path: Path) -> None:
    if tune in ("lora", "ia3"):
        pytest.importorskip("peft")
    backbone = save_backbone(tmp_path / "base", model_type, causal=True)
    module = fitted(LanguageTaskModule(backbone, PROMPTED, tune=tune), tmp_path / "a.ckpt")
    untrained = LanguageTaskModule(backbone, PROMPTED, tune="value")
    untrained.configure_model()
    assert not torch.allclose(expected(module), expected(untrained.eval()), atol=1e-5)
    torch.testing.assert_close(probabilities(load(tmp_path / "a.ckpt")), expected(module), rtol=1e-4, atol=1e-6)


ROWS: dict[str, tuple[TaskRecord, dict[str, Any], set[str]]] = {
    "copa with a prompt": (
        PROMPT_TASKS["copa"],
        {"premise": "The film was dull.", "choice1": "It was bad.", "choice2": "It was good.", "question": "cause"},
        {"choice1", "choice2"},
    ),
    "copa": (
        SUPER_GLUE_TASKS["copa"],
        {"premise": "The film was dull.", "choice1": "It was bad.", "choice2": "It was good.", "question": "cause"},
        {"choice1", "choice2"},
    ),
    "boolq": (PROMPT_TASKS["boolq"], {"passage": "the film", "question": "was it good", "idx": 5}, {"false", "true"}),
    "options in a list": (
        Task(name="own", kind="multiple_choice", text=("q",), options="o", metrics=("accuracy",)),
        {"q": "the film was", "o": ["good", "bad", "dull"]},
        {"good", "bad", "dull"},
    ),
    "mnli": (GLUE_TASKS["mnli"], {"sentence1": "the film", "sentence2": "it", "index": 3}, {"neutral", "entailment"}),
}


@pytest.mark.parametrize("name", list(ROWS))
def test_rows_without_a_label_keep_their_columns(name: str, backbone: str, decoder: str, tmp_path: Path) -> None:
    """A label that is there is not looked at, whatever it says."""
    task, row, labels = ROWS[name]
    base = backbone if task.adds_head else decoder
    fitted(LanguageTaskModule(base, replace(task, max_length=64), tune="value"), tmp_path / "a.ckpt")
    predictor = load(tmp_path / "a.ckpt")
    first, second = predictor.predict([row, {**row, "label": "no such"}])
    assert first == {**row, "label": first["label"], "probabilities": first["probabilities"]}
    assert second == {**first, "input_label": "no such"}
    assert labels <= set(first["probabilities"])
    assert first["probabilities"][first["label"]] == max(first["probabilities"].values())


@pytest.mark.parametrize(
    ("task", "given", "added"),
    [
        (PROMPT_TASKS["squad"], {"title": "a", "context": "b", "question": "c"}, {"text"}),
        (FreeTextTask(name="own", column="t"), "the film was good", {"loss", "perplexity"}),
        (
            Task(name="own", kind="multi_label", text=("t",), labels=("a", "b"), metrics=("micro_f1",)),
            "the film",
            {"labels", "probabilities"},
        ),
        (
            Task(name="own", kind="token_classification", text=("t",), labels=("O", "B-X"), metrics=("entity_f1",)),
            {"t": ["the", "film"]},
            {"tags"},
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_other_kinds_add_columns_of_their_own(
    task: TaskRecord, given: Any, added: set[str], backbone: str, decoder: str, tmp_path: Path
) -> None:
    base = backbone if task.adds_head else decoder
    fitted(LanguageTaskModule(base, replace(task, max_length=64), tune="value"), tmp_path / "a.ckpt")
    row = given if isinstance(given, dict) else {"t": given}
    (predicted,) = load(tmp_path / "a.ckpt").predict([given])
    assert predicted.keys() == {*row, *added}
    assert "tags" not in added or len(predicted["tags"]) == 2


def test_a_folder_that_says_nothing_of_its_task_is_a_classifier_of_texts(backbone: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(backbone, SST2, tune="value"), tmp_path / "a.ckpt")
    for form in ("hf", "peft"):
        export(tmp_path / "a.ckpt", tmp_path / form, form)
        (tmp_path / form / "beft_task.json").unlink()
    predictor = load(tmp_path / "hf")
    torch.testing.assert_close(probabilities(predictor), expected(module), rtol=1e-5, atol=1e-6)
    assert predictor.predict(TEXTS)[0].keys() == {"text", "label", "probabilities"}
    with pytest.raises(CheckpointError, match="peft: an adapter that does not say which task"):
        load(tmp_path / "peft")


def test_folders_that_are_no_export_say_why(decoder: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no beft_task.json, .* export the checkpoint anew"):
        load(decoder)
    fitted(LanguageTaskModule(decoder, PROMPTED, tune="value"), tmp_path / "a.ckpt")
    for name in ("kind", "malformed", "other", "missing"):
        export(tmp_path / "a.ckpt", tmp_path / name, "peft")
    config = json.loads((tmp_path / "kind" / "adapter_config.json").read_text())
    (tmp_path / "kind" / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORA"}))
    (tmp_path / "malformed" / "beft_task.json").write_text("{}")
    (tmp_path / "missing" / "adapter_model.safetensors").unlink()
    wider = save_backbone(tmp_path / "wider", "opt", causal=True, hidden_size=64, word_embed_proj_dim=64)
    for name, message, base in (
        ("kind", "an adapter of the type 'LORA'", None),
        ("malformed", "beft_task.json: no valid 'gguf_file'", None),
        ("missing", "adapter_model.safetensors: not readable", None),
        ("other", "of another model: it holds '.*bias' of shape", wider),
    ):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / name, backbone=base)


def test_checkpoints_that_cannot_predict_say_why(decoder: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(decoder, PROMPTED, tune="value"), tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    name = content[TRAINED_KEY][0]
    record = content[MODEL_KEY]
    foreign = {"state_dict": {"a": torch.zeros(1)}, TRAINED_KEY: ["a"], FINGERPRINT_KEY: {}, RNG_KEY: []}
    old = {entry: value for entry, value in record.items() if entry != "task"}
    unknown = {**record, "task": {**record["task"], "kind": "painting"}}
    diverged = {**content["state_dict"], name: content["state_dict"][name] * torch.nan}
    for broken, message in (
        ({**content, MODEL_KEY: {**record, "random_init": True}}, "trained over random weights"),
        ({**content, MODEL_KEY: old}, r"do not say how texts are encoded: use `predict --config CONFIG --ckpt_path "),
        ({**content, MODEL_KEY: unknown}, "b.ckpt: task 'sst2' is of the unknown kind 'painting'"),
        ({**content, "state_dict": diverged}, "the trained values of model.* are not finite"),
        (foreign, "does not say which backbone .*load_adapter"),
    ):
        torch.save(broken, tmp_path / "b.ckpt")
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "b.ckpt")
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(decoder).config).save_pretrained(
        tmp_path / "other"
    )
    for file in Path(decoder).glob("tokenizer*"):
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="frozen .* differs"):
        load(tmp_path / "a.ckpt", backbone=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load(tmp_path / "none.ckpt")


def test_the_examples_of_the_docs_run(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parents[1] / "docs"
    blocks = [
        block
        for name in ("own_data.md", "export.md")
        for block in re.findall(r"```python\n(.*?)```", (docs / name).read_text(), re.DOTALL)
        if ".predict(" in block
    ]
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").mkdir()
    fitted(LanguageTaskModule(backbone, SST2, tune="value"), Path("checkpoints/last.ckpt"))
    export("checkpoints/last.ckpt", "adapter", "peft")
    for block in blocks:
        exec(block, {"beft_lightning": beft_lightning})


@pytest.mark.parametrize("device", ["gpu0", "cuda:77"])
def test_a_device_that_is_not_there_is_one_error(device: str, backbone: str, tmp_path: Path) -> None:
    fitted(LanguageTaskModule(backbone, SST2, tune="value"), tmp_path / "a.ckpt")
    with pytest.raises(BeftError, match=f"(?s)device {device}: cannot be used .*Give cpu"):
        load(tmp_path / "a.ckpt", device=device)
