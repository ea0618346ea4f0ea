"""Answers to requests of all kinds equal those of each adapter alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

import beft_lightning
from beft_lightning import LanguageTaskModule
from beft_lightning.checkpoint import ADAPTER_FILE
from beft_lightning.data import PROMPT_TASKS
from beft_lightning.export import export
from beft_lightning.serving.engine import Engine
from beft_lightning.serving.requests import ChatBody, ClassifyBody, CompletionBody, ScoreBody
from tests.chats import CHAT_VOCABULARY, TEMPLATE, chat_tokenizer, save_chat_backbone
from tests.export.fits import CAUSAL, SST2, fitted
from tests.serving.adapters import trained

COPA = PROMPT_TASKS["copa"]
#: The tokens that end the answers of the chat backbone: its eos, and the end of a turn.
ENDS = [CHAT_VOCABULARY.index("[EOS]"), CHAT_VOCABULARY.index("[END]")]
ROW = {"premise": "the film was dull .", "choice1": "it was bad .", "choice2": "a good plot .", "question": "cause"}


@pytest.fixture(scope="module")
def adapters(chat_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters of choices, one of them in PEFT's format, and a classifier."""
    folder = tmp_path_factory.mktemp("adapters")
    trained(chat_backbone, COPA, "value", folder / "one.ckpt", 1)
    trained(chat_backbone, COPA, "value,mlp_out", folder.parent / "two.ckpt", 2)
    export(folder.parent / "two.ckpt", folder / "two", "peft")
    (folder / "sst2.ckpt").mkdir()  # as DeepSpeed's checkpoints
    trained(chat_backbone, SST2, "value", folder / "sst2.ckpt" / ADAPTER_FILE, 3)
    return folder


@pytest.fixture(scope="module")
def engine(chat_backbone: str, adapters: Path) -> Engine:
    made = Engine(chat_backbone, max_tokens=20)
    for path in sorted(adapters.iterdir()):
        made.add(path.stem, path)
    return made


def _answers(engine: Engine, requests: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The whole answers to a batch."""
    whole: list[dict[str, Any]] = [{"text": ""} for _ in requests]
    for step in engine.answers(requests):
        for answer, new in zip(whole, step, strict=True):
            if new is not None:
                answer.update({**new, "text": answer["text"] + new.get("text", "")})
    return whole


def test_a_batch_of_all_kinds_gives_what_each_adapter_alone_gives(
    engine: Engine, adapters: Path, chat_backbone: str
) -> None:
    prompt = "the film was"
    texts = [
        CompletionBody(model=m, prompt=prompt, max_tokens=4 + i, temperature=0.0)
        for i, m in enumerate(("one", "two", "base"))
    ]
    answers = _answers(
        engine,
        [
            ("completions", texts[0]),
            ("classify", ClassifyBody(model="sst2", input=["a good film", "dull"])),
            ("classify", ClassifyBody(model="one", input=ROW)),
            ("classify", ClassifyBody(model="two", input=[ROW, ROW])),
            ("completions", texts[1]),
            ("score", ScoreBody(model="two", prompt=prompt, options=[" good", " bad film"])),
            ("completions", texts[2]),
        ],
    )
    assert _close(answers[1]["result"], beft_lightning.load(adapters / "sst2.ckpt").predict(["a good film", "dull"]))
    for place, path, rows in ((2, adapters / "one.ckpt", [ROW]), (3, adapters / "two", [ROW, ROW])):
        assert _close(answers[place]["result"], beft_lightning.load(path).predict(rows))
    tokenizer = engine.tokenizer
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    for place, (name, count) in {0: ("one", 4), 4: ("two", 5), 6: ("base", 6)}.items():
        model: Any = CAUSAL.from_pretrained(chat_backbone).eval()
        if name != "base":
            model = beft_lightning.load(adapters / ("two" if name == "two" else "one.ckpt")).model
        alone = model.generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=ENDS)
        assert answers[place]["text"] == tokenizer.decode(alone[0, ids.shape[1] :], skip_special_tokens=True)
        assert answers[place]["prompt_tokens"] == ids.shape[1]
        assert answers[place]["finish_reason"] in ("length", "stop")
    model = beft_lightning.load(adapters / "two").model
    for found, option in zip(answers[5]["result"], (" good", " bad film"), strict=True):
        whole = tokenizer(prompt + option, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores = model(whole).logits.log_softmax(-1)[0, ids.shape[1] - 1 : -1]
        expected = scores.gather(1, whole[0, ids.shape[1] :, None]).sum().item()
        assert found["logprob"] == pytest.approx(expected, abs=1e-4)
        assert found["tokens"] == whole.shape[1] - ids.shape[1]


def _close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    return all(
        one["label"] == other["label"] and one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        for one, other in zip(found, expected, strict=True)
    )


def test_a_wrong_request_spoils_no_other(engine: Engine) -> None:
    good = CompletionBody(model="one", prompt="the film", max_tokens=2, temperature=0.0)
    wrong = [
        (
            404,
            "no adapter 'three' is served; there are: base, one, sst2, two",
            good.model_copy(update={"model": "three"}),
        ),
        (400, "exceed the model's 64 positions", good.model_copy(update={"prompt": "film " * 40})),
        (400, "more than the 20 that this server allows", good.model_copy(update={"max_tokens": 21})),
        (400, "'sst2' is no language model", good.model_copy(update={"model": "sst2"})),
        (400, "the prompt is empty", good.model_copy(update={"prompt": ""})),
        (400, "the base has no labels", ClassifyBody(model="base", input="good")),
        (400, "no 'premise'", ClassifyBody(model="one", input={"text": "good"})),
        (400, "reads premise", ClassifyBody(model="one", input="good")),
        (400, "longer than the model's 64 positions", ScoreBody(model="one", prompt="film " * 40, options=[" good"])),
        (400, "positions, and the model has 64: shorten it", ClassifyBody(model="sst2", input="film " * 80)),
        (400, "", ScoreBody(model="one", prompt="film", options=[""])),
    ]
    routes = {CompletionBody: "completions", ClassifyBody: "classify", ScoreBody: "score"}
    answers = _answers(engine, [("completions", good), *((routes[type(body)], body) for *_, body in wrong)])
    assert answers[0]["text"] == _answers(engine, [("completions", good)])[0]["text"]
    for answer, (status, message, _) in zip(answers[1:], wrong, strict=True):
        assert answer["status"] == status
        assert message in answer["error"]


def test_a_chat_is_written_as_its_template_says(engine: Engine) -> None:
    chat = ChatBody.model_validate(
        {"model": "one", "messages": [{"role": "user", "content": "good film"}], "max_tokens": 3, "temperature": 0.0}
    )
    plain = CompletionBody(model="one", prompt="user: good film[END]\nassistant: ", max_tokens=3, temperature=0.0)
    answers = _answers(engine, [("chat", chat), ("completions", plain)])
    assert answers[0]["text"] == answers[1]["text"]


@pytest.mark.parametrize("asked", ["assistant: <think>\n", "{{ 1 / 0 }}"], ids=["thoughts", "an error"])
def test_a_template_that_does_not_tell_its_end_breaks_no_text(asked: str, tmp_path: Path) -> None:
    """And texts are read as a fit reads them: without the special token that this tokenizer puts at their end."""
    tokenizer = chat_tokenizer(TEMPLATE.replace("{{ 'assistant: ' }}", asked))
    special: Any = [("[BOS]", 2), ("[EOS]", ENDS[0])]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=special)
    backbone = save_chat_backbone(tmp_path)
    tokenizer.save_pretrained(backbone)
    engine = Engine(backbone)
    body = CompletionBody(model="base", prompt="the film", max_tokens=4, temperature=0.0)
    answer = _answers(engine, [("completions", body)])[0]
    ids = torch.tensor([[2, *tokenizer("the film", add_special_tokens=False)["input_ids"]]])
    alone: Any = CAUSAL.from_pretrained(backbone).eval()
    expected = alone.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert answer["text"] == tokenizer.decode(expected, skip_special_tokens=True)
    assert answer["prompt_tokens"] == ids.shape[1]


def test_a_base_in_half_precision_answers_all_kinds(
    engine: Engine, adapters: Path, chat_backbone: str, tmp_path: Path
) -> None:
    fitted(LanguageTaskModule(chat_backbone, SST2, tune="value", dtype="bfloat16"), tmp_path / "sst2.ckpt", 3)
    half = Engine(chat_backbone, dtype="bfloat16", max_tokens=20)
    half.add("sst2", tmp_path / "sst2.ckpt")
    half.add("two", adapters / "two")
    requests = [
        ("classify", ClassifyBody(model="sst2", input="a good film")),
        ("classify", ClassifyBody(model="two", input=ROW)),
        ("score", ScoreBody(model="two", prompt="the film", options=[" good", " bad film"])),
        ("completions", CompletionBody(model="two", prompt="the film", max_tokens=3, temperature=0.0)),
    ]
    answers = _answers(half, requests)
    choice, options = (own["result"] for own in _answers(engine, requests[1:3]))
    label = beft_lightning.load(tmp_path / "sst2.ckpt").predict(["a good film"])[0]
    for found, full in ((answers[0]["result"][0], label), (answers[1]["result"][0], choice[0])):
        assert found["probabilities"] == pytest.approx(full["probabilities"], abs=0.02)
    for found, full in zip(answers[2]["result"], options, strict=True):
        assert found["mean"] == pytest.approx(full["mean"], abs=0.05)
    assert answers[3]["finish_reason"] in ("length", "stop")


def test_adapters_are_removed_and_replaced_by_others_of_another_head(engine: Engine, adapters: Path) -> None:
    engine.add("guest", adapters / "sst2.ckpt")
    engine.add("guest", adapters / "one.ckpt")
    body = ClassifyBody(model="guest", input=ROW)
    same = _answers(engine, [("classify", body), ("classify", body.model_copy(update={"model": "one"}))])
    assert same[0]["result"] == same[1]["result"]
    engine.remove("guest")
    assert _answers(engine, [("classify", body)])[0]["status"] == 404


def test_an_encoder_serves_classifiers_only(backbone: str, tmp_path: Path) -> None:
    trained(backbone, SST2, "value", tmp_path / "sst2.ckpt")
    engine = Engine(backbone)
    engine.add("sst2", tmp_path / "sst2.ckpt")
    answers = _answers(
        engine,
        [
            ("classify", ClassifyBody(model="sst2", input="good")),
            ("score", ScoreBody(model="base", prompt="a", options=[" film"])),
        ],
    )
    assert _close(answers[0]["result"], beft_lightning.load(tmp_path / "sst2.ckpt").predict(["good"]))
    assert "no language model" in answers[1]["error"]


def test_an_adapter_whose_values_overflow_fails_alone(engine: Engine, chat_backbone: str, tmp_path: Path) -> None:
    """Finite in its file, and not where the layers' are summed."""
    for name, task in (("one", COPA), ("sst2", SST2)):
        path = tmp_path / f"wild_{name}.ckpt"
        trained(chat_backbone, task, "mlp_out", path)
        checkpoint = torch.load(path, weights_only=True)
        for parameter, value in checkpoint["state_dict"].items():
            if parameter.endswith("down_proj.bias"):
                value.fill_(3e38)
        torch.save(checkpoint, path)
        engine.add(path.stem, path)
    good = CompletionBody(model="one", prompt="the film", max_tokens=5, temperature=0.0)
    answers = _answers(
        engine,
        [
            ("completions", good.model_copy(update={"model": "wild_one", "temperature": 1.0})),
            ("completions", good),
            ("completions", good.model_copy(update={"model": "wild_one"})),
            ("score", ScoreBody(model="wild_one", prompt="the", options=[" film"])),
            ("score", ScoreBody(model="one", prompt="the", options=[" film"])),
            ("classify", ClassifyBody(model="wild_sst2", input="good")),
            ("classify", ClassifyBody(model="sst2", input="good")),
        ],
    )
    for name in ("one", "sst2"):
        engine.remove(f"wild_{name}")
    assert answers[1]["text"] == _answers(engine, [("completions", good)])[0]["text"]
    assert answers[1]["finish_reason"] in ("length", "stop")
    for place in (0, 2, 3, 5):
        assert (answers[place]["status"], "not finite" in answers[place]["error"]) == (500, True)
    assert "result" in answers[4]
    assert "result" in answers[6]


def test_a_request_that_fails_for_any_reason_fails_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = CompletionBody(model="one", prompt="the film", max_tokens=2, temperature=0.0)
    chat = ChatBody.model_validate({"model": "one", "messages": [{"role": "user", "content": "a"}]})

    def fail(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError("in a template")

    monkeypatch.setattr("beft_lightning.serving.engine.render", fail)
    answers = _answers(engine, [("completions", good), ("chat", chat)])
    assert answers[0]["finish_reason"] in ("length", "stop")
    assert answers[1] == {"text": "", "error": "the request has failed; the log says why.", "status": 500}
    assert "in a template" in caplog.text


def test_options_are_scored_in_parts_with_the_same_results(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [" good", " bad film", " dull", " a good plot", " was", " it was"]
    bodies = [ScoreBody(model=m, prompt="the film", options=options[: 6 - i]) for i, m in enumerate(("one", "two"))]
    requests = [("score", body) for body in bodies]
    whole = _answers(engine, requests)
    passes: list[torch.Size] = []
    monkeypatch.setattr("beft_lightning.serving.predictions.MOST_TOKENS", 8)
    model = engine._predictors["AutoModelForCausalLM"].bank.model
    hook = model.register_forward_pre_hook(
        lambda _, __, inputs: passes.append(inputs["input_ids"].shape), with_kwargs=True
    )
    in_parts = _answers(engine, requests)
    hook.remove()
    assert len(passes) > 4
    assert max(shape.numel() for shape in passes) <= 8
    for found, expected in zip(in_parts, whole, strict=True):
        for one, other in zip(found["result"], expected["result"], strict=True):
            assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-5)
            assert (one["option"], one["tokens"]) == (other["option"], other["tokens"])
