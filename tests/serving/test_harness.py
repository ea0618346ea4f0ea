"""lm-evaluation-harness gives checkpoints, exports and banks the log-probabilities that validation gives them."""

from pathlib import Path
from typing import Any

import pytest

import beft_lightning
from beft_lightning.commands.predict import read_inputs
from beft_lightning.data import PROMPT_TASKS
from beft_lightning.errors import BeftError
from beft_lightning.export import export
from beft_lightning.models import load_model, load_tokenizer
from beft_lightning.serving import AdapterBank
from tests.export.fits import CAUSAL, SST2
from tests.serving.adapters import trained

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install lm-eval")
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from beft_lightning.serving.harness import BeftLM


def _requests(pairs: list[tuple[str, str]]) -> list[Any]:
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


@pytest.mark.parametrize("task", ["copa", "boolq"])
def test_the_mean_by_token_chooses_as_validation_does(
    task: str, data_dir: Path, short_smollm2: str, tmp_path: Path
) -> None:
    trained(short_smollm2, PROMPT_TASKS[task], "value", tmp_path / "a.ckpt")
    predictor = beft_lightning.load(tmp_path / "a.ckpt", device="cpu")
    source = next((data_dir / "super_glue" / task).glob("validation*"))
    rows: list[Any] = [row for _, row in read_inputs(str(source), predictor.task)[:8]]
    examples = [example for row in rows for _, example in predictor.task.parse_input(row, "")]
    pairs = [(example.prompt, option) for example in examples for option in example.options]
    sums = [total for total, _ in BeftLM(str(tmp_path / "a.ckpt"), device="cpu").loglikelihood(_requests(pairs), True)]
    tokens = [len(predictor.tokenizer(p + o)["input_ids"]) - len(predictor.tokenizer(p)["input_ids"]) for p, o in pairs]
    means = iter(total / count for total, count in zip(sums, tokens, strict=True))
    chosen = []
    for example in examples:
        scores = [next(means) for _ in example.options]
        chosen.append(scores.index(max(scores)))
    predicted = [list(row["probabilities"]).index(row["label"]) for row in predictor.predict(rows)]
    assert chosen == predicted
    assert len(chosen) == 8


def test_exports_and_banks_get_the_same_log_probabilities(chat_backbone: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.ckpt"
    trained(chat_backbone, PROMPT_TASKS["copa"], "value", checkpoint)
    pairs = [("the film was", " good"), ("the story was", " very bad")]
    expected = [total for total, _ in BeftLM(str(checkpoint), device="cpu").loglikelihood(_requests(pairs), True)]
    bank = AdapterBank(load_model(CAUSAL, chat_backbone))
    bank.add("one", checkpoint)
    for form in ("hf", "peft"):
        export(checkpoint, tmp_path / form, form)
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    for model in (
        HFLM(pretrained=str(tmp_path / "hf"), **options),
        HFLM(pretrained=chat_backbone, peft=str(tmp_path / "peft"), **options),
        BeftLM(bank=bank, adapter="one", tokenizer=load_tokenizer(chat_backbone)),
    ):
        found = [total for total, _ in model.loglikelihood(_requests(pairs), True)]
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_bank_in_half_precision_computes_under_autocast(chat_backbone: str, tmp_path: Path) -> None:
    trained(chat_backbone, PROMPT_TASKS["copa"], "value", tmp_path / "a.ckpt")
    requests, found = _requests([("the film was", " good")]), []
    for dtype in ("float32", "bfloat16"):
        bank = AdapterBank(load_model(CAUSAL, chat_backbone, dtype=dtype))
        bank.add("one", tmp_path / "a.ckpt")
        model = BeftLM(bank=bank, adapter="one", tokenizer=load_tokenizer(chat_backbone))
        found += [total for total, _ in model.loglikelihood(requests, True)]
    assert found[1] == pytest.approx(found[0], abs=0.05)


def test_what_is_no_language_model_is_one_error(backbone: str, tmp_path: Path) -> None:
    trained(backbone, SST2, "value", tmp_path / "a.ckpt")
    with pytest.raises(BeftError, match="is no language model"):
        BeftLM(str(tmp_path / "a.ckpt"), device="cpu")
    with pytest.raises(BeftError, match="either a checkpoint, or a bank"):
        BeftLM()
