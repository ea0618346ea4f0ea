"""Rows of tokens some of which are learnt."""

from typing import Any

import pytest
import torch

from beft_lightning.data.learnt_tokens import LearntTokens, pack_learnt
from beft_lightning.data.packed_options import EncodedOptions, pack_options
from beft_lightning.errors import DataError
from beft_lightning.tasks.option_scores import option_log_probabilities
from tests.tiny import make_model

EXAMPLES = [LearntTokens((2, 5, 6, 7, 8, 9), (2, 3, 5)), LearntTokens((2, 11, 12), (2,))]


def test_each_learnt_token_is_scored_behind_all_that_precedes_it() -> None:
    model: Any = make_model("llama", causal=True).double().eval()
    sums, lengths = option_log_probabilities(model, pack_learnt(EXAMPLES, pad_token=0))
    assert lengths.tolist() == [3, 1]
    for example, total in zip(EXAMPLES, sums, strict=True):
        expected = 0.0
        for place in example.learnt:
            logits = model(input_ids=torch.tensor([example.ids[:place]])).logits[0, -1]
            expected += logits.log_softmax(-1)[example.ids[place]].item()
        assert total.item() == pytest.approx(expected)


def test_one_answer_packs_as_an_option_does() -> None:
    packed = pack_learnt([LearntTokens((2, 5, 6, 7), (2, 3))], pad_token=0)
    option = pack_options([EncodedOptions((2, 5, 6), ((7,),), (2,))], pad_token=0)
    assert {name: torch.as_tensor(value).tolist() for name, value in packed.items()} == {
        name: torch.as_tensor(value).tolist() for name, value in option.items()
    }


def test_the_beginning_is_cut_and_what_is_learnt_never() -> None:
    assert EXAMPLES[0].without_beginning(6) == EXAMPLES[0]
    assert EXAMPLES[0].without_beginning(5) == LearntTokens((5, 6, 7, 8, 9), (1, 2, 4), 1)
    assert EXAMPLES[0].without_beginning(5, {2}) == LearntTokens((2, 6, 7, 8, 9), (1, 2, 4), 1)
    with pytest.raises(DataError, match=r"leaves no room for what precedes it within 4 tokens: raise max_length\.$"):
        EXAMPLES[0].without_beginning(4)
