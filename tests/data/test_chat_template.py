"""Answers and their places in what a chat template writes."""

import pytest

from beft_lightning.data.chat_template import answer_spans, render, turn_end
from beft_lightning.errors import DataError
from tests.chats import TEMPLATE, chat_tokenizer, conversation

MESSAGES = conversation("the film", "good\nplot", "bad", "but fine")
#: Writes an earlier answer without its content once another message follows, as some models drop their thoughts.
FORGETS = (
    "{% for m in messages %}{{ m['role'] + ': ' + ('' if m['role'] == 'assistant' and not loop.last else m['content']) "
    "+ '[END]\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
ALTERNATES = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('users speak first') }}{% endif %}" + TEMPLATE


def test_answers_are_where_the_template_puts_them() -> None:
    text, spans = answer_spans(chat_tokenizer(), MESSAGES)
    assert text == "user: the film[END]\nassistant: good\nplot[END]\nuser: bad[END]\nassistant: but fine[END]\n"
    assert [text[begin:end] for begin, end in spans] == ["good\nplot[END]", "but fine[END]"]


def test_an_answer_is_asked_for_as_the_template_says() -> None:
    assert render(chat_tokenizer(), MESSAGES[:1], to_answer=True) == "user: the film[END]\nassistant: "


def test_a_template_that_rewrites_what_came_before() -> None:
    answer_spans(chat_tokenizer(FORGETS), MESSAGES[:2])
    with pytest.raises(DataError, match=r"up to message 2 otherwise once messages follow.*one answer each"):
        answer_spans(chat_tokenizer(FORGETS), MESSAGES)


def test_a_tokenizer_without_a_template() -> None:
    with pytest.raises(DataError, match="no chat template: give a backbone that was made for chats"):
        render(chat_tokenizer(None), MESSAGES, to_answer=True)


def test_a_conversation_that_the_template_refuses() -> None:
    with pytest.raises(DataError, match="the chat template refuses the conversation: users speak first"):
        answer_spans(chat_tokenizer(ALTERNATES), MESSAGES[1:])


def test_what_ends_an_answer() -> None:
    tokenizer = chat_tokenizer()
    assert tokenizer.convert_ids_to_tokens(turn_end(tokenizer)) == "[END]"
    with pytest.raises(DataError, match=r"ends answers with '' *, which is no special token"):
        turn_end(chat_tokenizer(TEMPLATE.replace("[END]", "")))


def test_a_real_template(short_smollm2: str) -> None:
    from beft_lightning.models import load_tokenizer

    tokenizer = load_tokenizer(short_smollm2)
    text, spans = answer_spans(tokenizer, MESSAGES)
    assert [text[begin:end] for begin, end in spans] == ["good\nplot<|im_end|>", "but fine<|im_end|>"]
    assert turn_end(tokenizer) == tokenizer.eos_token_id
