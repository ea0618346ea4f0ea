"""Predictions of several adapters at once, whatever shares their batch."""

from dataclasses import replace

import pytest
import torch

from beft_lightning.data import PROMPT_TASKS
from beft_lightning.errors import DataError
from beft_lightning.serving import Adapter, AdapterBank
from beft_lightning.serving.predictions import BankPredictor
from tests.chats import CHAT_VOCABULARY, chat_tokenizer
from tests.tiny import make_model

COPA = PROMPT_TASKS["copa"]
ROW = {"premise": "the film was dull .", "choice1": "it was bad .", "choice2": "a good plot .", "question": "cause"}


def _predictor(model_type: str) -> BankPredictor:
    model = make_model(model_type, causal=True, vocab_size=len(CHAT_VOCABULARY))
    return BankPredictor(AdapterBank(model), chat_tokenizer())


def test_calibrated_and_other_choices_do_not_change_each_other() -> None:
    predictor = _predictor("llama")
    for name, calibrate in (("plain", False), ("calibrated", True)):
        predictor.bank.add(name, Adapter({}, task=replace(COPA, calibrate=calibrate)))
    alone = {name: predictor.predict(predictor.encode(name, [ROW]))[0] for name in ("plain", "calibrated")}
    assert alone["plain"] != alone["calibrated"]
    for names in (("plain", "calibrated"), ("calibrated", "plain")):
        together = predictor.predict(one for name in names for one in predictor.encode(name, [ROW]))
        for name, found in zip(names, together, strict=True):
            assert found["probabilities"] == pytest.approx(alone[name]["probabilities"], abs=1e-5)


def test_an_input_with_very_many_options_is_refused() -> None:
    predictor = _predictor("llama")
    predictor.bank.add("record", Adapter({}, task=PROMPT_TASKS["record"]))
    row = {"passage": "the film", "query": "it was @placeholder .", "entities": [f"film {i}" for i in range(257)]}
    with pytest.raises(DataError, match="an input has 257 options, and 256 are the most"):
        predictor.encode("record", [row])


@pytest.mark.parametrize("model_type", ["llama", "bloom"])
def test_no_pass_over_options_has_more_tokens_than_allowed(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLOOM has no positions that options in one row could share: each has a row of its own."""
    predictor = _predictor(model_type)
    requests = [
        ("it was a very good film", [" good plot", " bad", " a great story"]),
        ("the film", [" was good", " was", " was a very bad film with a plot", " is"]),
    ]
    encoded = [predictor.encode_score(*request) for request in requests]
    whole = predictor.score([(None, parts) for parts in encoded])
    predictor.bank.add("copa", Adapter({}, task=COPA))
    rows = [ROW, {**ROW, "premise": "the film"}, {**ROW, "choice1": "it was a good story ."}]
    chosen = predictor.predict(predictor.encode("copa", rows))
    monkeypatch.setattr("beft_lightning.serving.predictions.MOST_TOKENS", 30)
    passes: list[torch.Size] = []
    predictor.bank.model.register_forward_pre_hook(
        lambda _, __, inputs: passes.append(inputs["input_ids"].shape), with_kwargs=True
    )
    in_parts = predictor.score([(None, predictor.encode_score(*request)) for request in requests])
    choices = predictor.predict(predictor.encode("copa", rows))
    assert max(shape.numel() for shape in passes) <= 30
    assert len(passes) > 4
    for one, other in zip(choices, chosen, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    for found, expected in zip(in_parts, whole, strict=True):
        assert [tokens for _, tokens in found] == [tokens for _, tokens in expected]
        assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
