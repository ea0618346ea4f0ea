"""Options that share a prompt score as if each had its own."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.data.packed_options import PADDING, PROMPT, EncodedOptions, pack_options
from beft_lightning.tasks.option_scores import (
    by_example,
    classification_loss,
    language_model_loss,
    option_log_probabilities,
    option_mask,
    separate_rows,
    takes_packed_rows,
)
from beft_lightning.tuning.prefix import add_prefix
from tests.tiny import MODEL_FORMS, make_model
from tests.tuning.test_prefix import DECODERS as PREFIXED

EXAMPLES = [
    EncodedOptions((2, 5, 6, 7, 8), ((9,), (10,)), (5, 5)),
    EncodedOptions((2, 11), ((12, 13, 14), (15,), (16, 17)), (2, 2, 2)),
    # The second option's first token still belongs to the prompt's text.
    EncodedOptions((2, 18, 19, 20), ((21, 5), (6, 7, 8)), (4, 5)),
    # Both options begin with the same two tokens.
    EncodedOptions((2, 18, 19, 20), ((21, 5), (6,)), (2, 2)),
]
ENCODERS = {"bert", "deberta-v2", "distilbert", "electra", "roberta", "t5", "xlm-roberta"}
DECODERS = ["opt", "gpt2", "llama"]


def naive(model: PreTrainedModel, example: EncodedOptions) -> list[tuple[Tensor, int]]:
    """One forward pass for each option, no padding."""
    scores = []
    for option, start in enumerate(example.starts):
        ids = torch.tensor([example.row(option)])
        log_probabilities = model(input_ids=ids).logits[0].log_softmax(-1)
        places = range(start, ids.shape[1])
        scores.append((sum((log_probabilities[i - 1, ids[0, i]] for i in places), torch.zeros(())), len(places)))
    return scores


@pytest.fixture(params=[*DECODERS, *(f"{name}, prefix" for name in DECODERS)])
def model(request: Any) -> PreTrainedModel:
    """All that holds for a model holds behind a prefix, too."""
    model_type, _, prefix = request.param.partition(", ")
    model = make_model(model_type, causal=True)
    if prefix:
        add_prefix(model)
    return model.double().eval()


@pytest.mark.parametrize("examples", [EXAMPLES, EXAMPLES[:1], EXAMPLES[1:2], EXAMPLES[::-1]])
def test_scores_equal_the_naive_ones(model: PreTrainedModel, examples: list[EncodedOptions]) -> None:
    sums, lengths = option_log_probabilities(model, pack_options(examples, pad_token=0))
    expected = [score for example in examples for score in naive(model, example)]
    torch.testing.assert_close(sums, torch.stack([score for score, _ in expected]), rtol=1e-12, atol=1e-12)
    assert lengths.tolist() == [length for _, length in expected]


FORMS = [form for form in MODEL_FORMS if form.split()[0] not in ENCODERS]


@pytest.mark.parametrize(
    ("form", "prefix"),
    [*((form, False) for form in FORMS), *((form, True) for form in FORMS if form.split()[0] in PREFIXED)],
)
def test_every_causal_architecture_scores_packed_options(form: str, prefix: bool) -> None:
    """In fp32: Mixtral's experts know no fp64, and eager attention's own mask is not a number in it."""
    model = make_model(form, causal=True).eval()
    if prefix:
        add_prefix(model)
    if getattr(model.config, "sliding_window", None):
        model.config.sliding_window = 64
    expected = torch.stack([score for example in EXAMPLES for score, _ in naive(model, example)])
    sums, _ = option_log_probabilities(model, pack_options(EXAMPLES, pad_token=0))
    torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-5)


def test_options_apart_are_the_same_options(model: PreTrainedModel) -> None:
    packed = pack_options(EXAMPLES, pad_token=0)
    apart = separate_rows(packed)
    assert len(apart["input_ids"]) == sum(len(example.own) for example in EXAMPLES)
    assert apart["segment_ids"].max() == PROMPT
    expected = option_log_probabilities(model, packed)[0]
    torch.testing.assert_close(option_log_probabilities(model, apart)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("form", "options", "columns", "taken"),
    [
        ("bloom", {}, 8, False),
        ("falcon alibi", {}, 8, False),
        ("falcon", {}, 8, True),
        ("mistral", {"sliding_window": 16}, 16, True),
        ("mistral", {"sliding_window": 16}, 17, False),
        ("gpt_neo", {"window_size": 16}, 17, False),
    ],
)
def test_rows_are_packed_where_positions_allow(form: str, options: dict[str, Any], columns: int, taken: bool) -> None:
    assert takes_packed_rows(make_model(form, causal=True, **options), columns) is taken


def test_padding_may_stand_on_either_side(model: PreTrainedModel) -> None:
    batch = pack_options(EXAMPLES, pad_token=0)
    padding = (batch["segment_ids"] == PADDING).sum(dim=1)
    assert padding.max() > 0
    moved = {
        name: torch.stack([row.roll(-int(n)) for row, n in zip(batch[name], padding, strict=True)])
        for name in ("input_ids", "segment_ids", "position_ids")
    }
    column = batch["target_column"] - padding[batch["target_row"]]
    right = {**batch, **moved, "target_column": column, "logits_to_keep": moved["input_ids"].shape[1]}
    expected = option_log_probabilities(model, batch)[0]
    torch.testing.assert_close(option_log_probabilities(model, right)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["classification", "lm"])
def test_gradients_equal_the_naive_ones(model: PreTrainedModel, kind: str) -> None:
    trained = [p for name, p in model.named_parameters() if name.endswith(("bias", "prefix.key_values"))]

    def loss(sums: Tensor, lengths: Tensor) -> Tensor:
        if kind == "lm":
            return language_model_loss(sums, lengths)
        option_row = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
        return classification_loss(sums, lengths, option_row, torch.tensor([1, 2, 0, 1]))

    shared = torch.autograd.grad(loss(*option_log_probabilities(model, pack_options(EXAMPLES, 0))), trained)
    scores = [score for example in EXAMPLES for score in naive(model, example)]
    lengths = torch.tensor([length for _, length in scores], dtype=torch.float64)
    separate = torch.autograd.grad(loss(torch.stack([score for score, _ in scores]), lengths), trained)
    largest = max(gradient.abs().max().item() for gradient in separate)
    assert largest > 1e-6
    # LLaMA's RMSNorm rounds to fp32 whatever the model's precision.
    torch.testing.assert_close(shared, separate, rtol=0, atol=1e-6 * largest)


def test_options_of_one_token_need_no_column_of_their_own() -> None:
    assert pack_options(EXAMPLES[:1], 0)["input_ids"].shape == (1, 5)


def test_an_option_alone_is_an_ordinary_row(model: PreTrainedModel) -> None:
    """As when only the right option is learnt: no column of options, the same scores."""
    alone = [example.only(1) for example in EXAMPLES]
    batch = pack_options(alone, 0)
    assert batch["segment_ids"].max() == PROMPT
    expected = torch.stack([naive(model, example)[1][0] for example in EXAMPLES])
    torch.testing.assert_close(option_log_probabilities(model, batch)[0], expected, rtol=1e-12, atol=1e-12)


def test_the_mask_shows_the_prompt_and_the_option_itself() -> None:
    segments = torch.tensor([[-1, 0, 0, 1, 2, 2]])
    visible = option_mask(segments, torch.float32)[0, 0] == 0
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 1, 0],
        [0, 1, 1, 0, 1, 1],
    ]


def test_a_table_by_example_is_filled_up_with_minus_infinity() -> None:
    table = by_example(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 1]), 2)
    assert table.tolist() == [[1.0, float("-inf")], [2.0, 3.0]]


def test_the_losses_are_those_of_the_formulas() -> None:
    sums, lengths = torch.tensor([-2.0, -1.0, -6.0]), torch.tensor([2.0, 1.0, 3.0])
    option_row, labels = torch.tensor([0, 0, 0]), torch.tensor([2])
    expected = torch.tensor([-1.0, -1.0, -2.0]).log_softmax(0)[2].neg()
    torch.testing.assert_close(classification_loss(sums, lengths, option_row, labels), expected)
    assert language_model_loss(sums, lengths).item() == pytest.approx(9 / 6)
