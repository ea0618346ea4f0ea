"""Language models that write their answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from beft_lightning import LanguageTaskModule
from beft_lightning.data import PROMPT_TASKS, PromptTask, Squad
from beft_lightning.data.answer_template import AnswerTemplate
from beft_lightning.data.chat_task import ChatTask, Conversation
from beft_lightning.data.chat_template import render
from beft_lightning.data.generation import Generation
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.chat import ChatPreprocessor
from beft_lightning.models import load_model, load_tokenizer
from beft_lightning.tasks.objectives.generation import ChatObjective, GenerationObjective
from beft_lightning.tasks.option_scores import option_log_probabilities
from tests.chats import CHAT_VOCABULARY, chat_tokenizer, conversation
from tests.tiny import make_model


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


def test_an_answer_ends_with_its_line(short_smollm2: str) -> None:
    tokenizer = load_tokenizer(short_smollm2)
    objective = GenerationObjective(PROMPT_TASKS["squad"], tokenizer)
    assert tokenizer.convert_ids_to_tokens(objective._stop) == ["Ċ", "<|im_end|>"]


def test_squad_runs_on_a_real_model(short_smollm2: str, data_dir: Path, make_trainer: Callable[..., Trainer]) -> None:
    data = Squad(short_smollm2, data_dir=data_dir, train_size=2, eval_size=2, batch_size=2, seed=0, max_length=300)
    trainer = make_trainer()
    trainer.fit(LanguageTaskModule(short_smollm2, data.task, tune="value"), datamodule=data)
    assert {"val_answer_f1", "val_answer_em", "val_loss"} <= set(trainer.callback_metrics)
    assert "train_loss" in trainer.callback_metrics


ANSWERS = PromptTask(
    name="questions",
    kind="generation",
    metrics=("answer_f1",),
    columns=("q", "a"),
    examples=AnswerTemplate("{q}", "a"),
    generation=Generation(6, "end_of_text"),
)
CHATS = ChatTask(name="chats", column="messages", generation=Generation(6, "end_of_text"))


class Scripted:
    """A model that writes the same tokens behind any prompt, and knows what it was asked."""

    def __init__(self, text: str) -> None:
        self.ids = chat_tokenizer()(text)["input_ids"]
        self.asked: dict[str, Any] = {}

    def generate(self, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        self.asked = options
        ends = [place for place, token in enumerate(self.ids) if token in options["eos_token_id"]]
        written = self.ids[: min(ends, default=len(self.ids)) + 1][: options["max_new_tokens"]]
        return torch.cat([input_ids, torch.tensor([written] * len(input_ids))], dim=1)


@pytest.mark.parametrize(
    ("task", "objective", "written", "answer"),
    [
        (ANSWERS, GenerationObjective, " good\nplot[EOS]bad", "good\nplot"),
        (ANSWERS, GenerationObjective, " a b c d e f", "a"),  # of 6 tokens, with spaces and unknown words
        (replace(ANSWERS, generation=Generation(9, "line")), GenerationObjective, " good\nplot", "good"),
        (CHATS, ChatObjective, "good\nplot[END]bad", "good\nplot"),
        (CHATS, ChatObjective, "good[EOS]bad", "good"),
    ],
)
def test_an_answer_ends_as_the_task_says(task: Any, objective: Any, written: str, answer: str) -> None:
    model: Any = Scripted(written)
    assert objective(task, chat_tokenizer()).rows(model, pad([[2, 5]])) == [{"text": answer}]
    assert (model.asked["do_sample"], model.asked["max_new_tokens"]) == (False, task.generation.max_new_tokens)


def test_options_of_transformers_are_passed_on(decoder: str) -> None:
    task = replace(ANSWERS, generation=Generation(4, "end_of_text", {"num_beams": 3, "do_sample": True}))
    scripted: Any = Scripted("a")
    objective = GenerationObjective(task, chat_tokenizer())
    objective.answers(scripted, pad([[2, 5]]))
    assert (scripted.asked["num_beams"], scripted.asked["do_sample"]) == (3, True)
    model: Any = load_model(objective.auto_class, decoder).eval()
    assert len(objective.answers(model, pad([[2, 5], [2, 6]]))) == 2


@pytest.fixture
def chats() -> tuple[Any, ChatPreprocessor, ChatObjective]:
    model = make_model("llama", causal=True, vocab_size=len(CHAT_VOCABULARY)).double().eval()
    tokenizer = chat_tokenizer()
    return model, ChatPreprocessor(CHATS, tokenizer, EncodingOptions(64)), ChatObjective(CHATS, tokenizer)


def test_several_turns_are_learnt_as_each_of_its_own(chats: Any) -> None:
    """The loss of a conversation is that of each answer behind all that precedes it, weighted by their tokens."""
    model, preprocessor, objective = chats
    tokenizer, messages = chat_tokenizer(), conversation("the film", "good\nplot", "bad", "but fine", "a", "story")
    total, tokens = torch.zeros((), dtype=torch.double), 0
    for place in (1, 3, 5):
        prompt = tokenizer(render(tokenizer, messages[:place], to_answer=True))["input_ids"]
        answer = tokenizer(messages[place]["content"] + "[END]")["input_ids"]
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])  # what transformers does not learn from
        total, tokens = total + model(input_ids=ids, labels=labels).loss * len(answer), tokens + len(answer)
    other = Conversation(tuple(conversation("a", "story")), id=1)
    (features,) = preprocessor.encode([Conversation(tuple(messages), id=0)])
    loss = objective.loss(model, preprocessor.collate_training([features]))
    assert loss.item() == pytest.approx((total / tokens).item())
    names = [name for name, _ in model.named_parameters()]
    for one, expected, name in zip(
        torch.autograd.grad(loss, model.parameters(), retain_graph=True),
        torch.autograd.grad(total / tokens, model.parameters()),
        names,
        strict=True,
    ):
        torch.testing.assert_close(one, expected, msg=name)
    # Padding and a neighbour change nothing.
    batch = preprocessor.collate_evaluation([features, *preprocessor.encode([other])])
    sums, lengths = option_log_probabilities(model, batch["learnt"])
    assert (-sums[0] / lengths[0]).item() == pytest.approx(loss.item())
    assert objective.evaluate(model, batch)[1].item() == pytest.approx((-sums.sum() / lengths.sum()).item())


def test_a_token_of_the_prompt_is_no_target(chats: Any) -> None:
    """The loss has a gradient at the logits that predict answers, and nowhere else."""
    model, preprocessor, objective = chats
    messages = tuple(conversation("the film", "good", "bad", "but fine"))
    (features,) = preprocessor.encode([Conversation(messages, id=0)])
    logits: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        logits.append(output)

    model.lm_head.register_forward_hook(keep)
    batch = {**preprocessor.collate_training([features]), "logits_to_keep": len(features["encoded"].ids) - 1}
    objective.loss(model, batch).backward()
    gradients = logits[0].grad
    assert gradients is not None
    learning = gradients[0].abs().sum(dim=-1).nonzero()[:, 0].tolist()
    assert learning == [place - 1 for place in features["encoded"].learnt]
