"""Tokens are chosen as a request says, and text is shown when it is certain."""

import pytest
import torch

from beft_lightning.serving.sampling import FAILED, Answer, Sampling
from tests.chats import CHAT_VOCABULARY, chat_tokenizer

LOGITS = torch.tensor([0.1, 2.0, 1.9, -3.0])


def _ids(*words: str) -> list[int]:
    return [CHAT_VOCABULARY.index(word) for word in words]


def _draws(sampling: Sampling, count: int = 200) -> list[int]:
    generator = sampling.generator(torch.device("cpu"))
    return [sampling.choose(LOGITS, generator) for _ in range(count)]


def test_temperature_zero_takes_the_most_probable_token() -> None:
    assert set(_draws(Sampling(1))) == {1}


def test_sampling_follows_the_probabilities_and_the_seed() -> None:
    draws = _draws(Sampling(1, temperature=1.0, seed=5), 4000)
    assert draws == _draws(Sampling(1, temperature=1.0, seed=5), 4000)
    assert draws != _draws(Sampling(1, temperature=1.0, seed=6), 4000)
    shares = torch.bincount(torch.tensor(draws), minlength=4) / len(draws)
    assert torch.allclose(shares, LOGITS.softmax(-1), atol=0.03)


@pytest.mark.parametrize("sampling", [{"temperature": 1e-320}, {"temperature": 1e-30}, {"top_p": 1e-320}])
def test_numbers_that_fp32_does_not_have_leave_the_most_probable_token(sampling: dict[str, float]) -> None:
    assert set(_draws(Sampling(1, **{"temperature": 1.0, **sampling}))) == {1}  # type: ignore[arg-type]


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, {1}), (0.6, {1, 2}), (0.95, {0, 1, 2})])
def test_top_p_keeps_the_most_probable_tokens(top_p: float, kept: set[int]) -> None:
    assert set(_draws(Sampling(1, temperature=1.0, top_p=top_p, seed=0), 500)) == kept


def test_an_answer_ends_at_its_limit_or_at_a_token() -> None:
    tokenizer = chat_tokenizer()
    answer = Answer(tokenizer, Sampling(2), _ids("[END]"))
    assert [answer.add(token) for token in _ids("good", "film")] == ["good", "film"]
    assert answer.finish_reason == "length"
    answer = Answer(tokenizer, Sampling(5), _ids("[END]"))
    assert [answer.add(token) for token in _ids("good", "[END]")] == ["good", ""]
    assert (answer.finish_reason, answer.tokens) == ("stop", 2)


def test_a_stop_text_is_never_shown_and_what_may_begin_one_waits() -> None:
    answer = Answer(chat_tokenizer(), Sampling(9, stop=("film was",)), [])
    shown = [answer.add(token) for token in _ids("a", " ", "film", " ", "is", " ", "film", " ", "was")]
    assert shown == ["a", " ", "", "", "film is", " ", "", "", ""]
    assert answer.finish_reason == "stop"
    assert "".join(shown) == "a film is "


def test_characters_are_shown_when_they_are_complete() -> None:
    class _Bytes:
        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            return bytes(tokens).decode(errors="replace")

    answer = Answer(_Bytes(), Sampling(9), [])  # type: ignore[arg-type]
    assert [answer.add(byte) for byte in "aé".encode()] == ["a", "", "é"]


def test_an_answer_that_fails_ends_with_the_next_token_whatever_it_is() -> None:
    answer = Answer(chat_tokenizer(), Sampling(9), [])
    assert answer.add(*_ids("good")) == "good"
    answer.fail()
    assert answer.finish_reason is None
    assert answer.add(*_ids("film")) == ""
    assert answer.finish_reason == FAILED
