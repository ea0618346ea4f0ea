"""The likelihood of free text."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from beft_lightning.data.free_text_task import FreeText, FreeTextTask
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.free_text import FreeTextPreprocessor
from beft_lightning.tasks.metrics import TaskMetrics
from beft_lightning.tasks.objectives.free_text import FreeTextObjective
from tests.chats import CHAT_VOCABULARY, chat_tokenizer
from tests.tiny import make_model

TASK = FreeTextTask(name="books", column="page")
TEXTS = ["the film was good", "a"]


def test_loss_and_perplexity_are_those_of_all_tokens() -> None:
    tokenizer = chat_tokenizer()
    model: Any = make_model("llama", causal=True, vocab_size=len(CHAT_VOCABULARY)).double().eval()
    losses = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
        losses.append((model(input_ids=ids, labels=ids).loss.item(), ids.shape[1] - 1))  # transformers' own loss
    preprocessor = FreeTextPreprocessor(TASK, tokenizer, EncodingOptions(64))
    batch = preprocessor.collate_evaluation(preprocessor.encode([FreeText(text, id=i) for i, text in enumerate(TEXTS)]))
    objective, metrics = FreeTextObjective(TASK), TaskMetrics(TASK, "val_")
    with torch.no_grad():
        predictions, loss = objective.evaluate(model, batch)
        rows = objective.rows(model, batch)
    mean = sum(loss * tokens for loss, tokens in losses) / sum(tokens for _, tokens in losses)
    assert loss is not None
    assert loss.item() == pytest.approx(mean)
    assert objective.loss(model, batch).item() == pytest.approx(mean)
    assert [row["loss"] for row in rows] == pytest.approx([loss for loss, _ in losses])
    assert [row["perplexity"] for row in rows] == pytest.approx([math.exp(loss) for loss, _ in losses])
    assert objective.decode(predictions, batch) == [row["perplexity"] for row in rows]
    metrics.update(predictions, batch)
    assert metrics.named()["val_perplexity"].compute().item() == pytest.approx(math.exp(mean), rel=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "opt", "gpt2", "bloom", "gpt_neo", "mistral"])
def test_packed_texts_have_the_likelihood_that_each_has_alone(model_type: str) -> None:
    """BLOOM's ALiBi and a sliding window count positions along the row: there each text gets a row of its own."""
    tokenizer = chat_tokenizer()
    window: dict[str, Any] = {"sliding_window": 8} if model_type == "mistral" else {}
    model: Any = make_model(model_type, causal=True, vocab_size=len(CHAT_VOCABULARY), **window).eval()
    objective = FreeTextObjective(TASK)
    examples = [FreeText(text, id=i) for i, text in enumerate([*TEXTS, "very dull", "fine plot and story"])]
    sums = []
    for packing in (False, True):
        preprocessor = FreeTextPreprocessor(replace(TASK, packing=packing), tokenizer, EncodingOptions(64))
        batch = preprocessor.collate_evaluation(preprocessor.rows(preprocessor.encode(examples)))
        assert len(batch["input_ids"]) == (1 if packing else 4)
        with torch.no_grad():
            sums.append(objective.evaluate(model, batch)[0])
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-5, atol=1e-4)
