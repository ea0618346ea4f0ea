"""Language models that write their answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from beft_lightning import LanguageTaskModule
from beft_lightning.data import PROMPT_TASKS, Squad
from beft_lightning.models import load_model, load_tokenizer
from beft_lightning.tasks.objectives.generation import GenerationObjective


def test_batched_answers_equal_single_ones(decoder: str) -> None:
    objective = GenerationObjective(PROMPT_TASKS["squad"], load_tokenizer(decoder))
    model: Any = load_model(objective.auto_class, decoder).eval()
    prompts = [[2, 5, 6], [2, 7, 8, 9, 10, 11]]
    single = [objective.evaluate(model, pad([prompt]))[0][0] for prompt in prompts]
    assert objective.evaluate(model, pad(prompts))[0] == single


def pad(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    columns = max(map(len, prompts))
    padding = [columns - len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)]),
        "attention_mask": torch.tensor([[0] * pad + [1] * (columns - pad) for pad in padding]),
    }


def test_an_answer_ends_with_its_line(smollm2: dict[str, str]) -> None:
    tokenizer = load_tokenizer(smollm2["backbone"], smollm2["gguf_file"])
    objective = GenerationObjective(PROMPT_TASKS["squad"], tokenizer)
    assert tokenizer.convert_ids_to_tokens(objective._stop) == ["Ċ", "<|im_end|>"]


def test_squad_runs_on_a_real_model(
    smollm2: dict[str, str], data_dir: Path, make_trainer: Callable[..., Trainer]
) -> None:
    data = Squad(
        smollm2["backbone"],
        gguf_file=smollm2["gguf_file"],
        data_dir=data_dir,
        train_size=2,
        eval_size=2,
        batch_size=2,
        seed=0,
        max_length=300,
    )
    trainer = make_trainer()
    trainer.fit(
        LanguageTaskModule(task=data.task, tune="value", backbone=smollm2["backbone"], gguf_file=smollm2["gguf_file"]),
        datamodule=data,
    )
    assert {"val_answer_f1", "val_answer_em"} <= set(trainer.callback_metrics)
    assert "train_loss" in trainer.callback_metrics
