"""Conversations as text: what the tokenizer's chat template makes of them, and where the answers are."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.chat_task import ASSISTANT
from beft_lightning.errors import DataError

Messages = Sequence[Mapping[str, str]]


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, to_answer: bool) -> str:
    """Return a conversation as text, special tokens included.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The messages.
        to_answer: End with what begins an answer of the assistant.

    Raises:
        DataError: If the tokenizer has no chat template, or the template refuses the conversation.
    """
    if tokenizer.chat_template is None:
        raise DataError(
            "the tokenizer has no chat template: give a backbone that was made for chats (most often named -Instruct "
            "or -Chat), put a chat_template.jinja beside its tokenizer, or use --data.prompt and --data.answer."
        )
    try:
        text = tokenizer.apply_chat_template(list(map(dict, messages)), tokenize=False, add_generation_prompt=to_answer)
    except TemplateError as error:
        raise DataError(f"the chat template refuses the conversation: {error}.") from error
    return str(text)


def answer_spans(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
    """Return a conversation as text, and where in it each answer of the assistant begins and ends.

    An answer begins behind what the template writes to ask for it, and ends with what the template ends it with, less
    white space. The text up to each answer has to be the beginning of the whole, or else no place in it can be told.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The messages.

    Raises:
        DataError: If the template writes earlier messages otherwise once others follow.
    """
    text = render(tokenizer, messages, to_answer=False)
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        before = render(tokenizer, messages[:place], to_answer=True)
        through = render(tokenizer, messages[: place + 1], to_answer=False)
        if not all(later.startswith(earlier) for earlier, later in pairwise((before, through, text))):
            raise DataError(
                f"the chat template writes what is up to message {place + 1} otherwise once messages follow, so that "
                "the answers' places cannot be told: give conversations with one answer each, or a tokenizer whose "
                "template leaves earlier messages as they are."
            )
        spans.append((len(before), len(through.rstrip())))
    return text, spans


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an answer of the assistant.

    Raises:
        DataError: If the chat template ends answers with no special token: a model could not learn to stop.
    """
    answer = "answer"
    messages = [{"role": "user", "content": "question"}, {"role": ASSISTANT, "content": answer}]
    text, [(_, end)] = answer_spans(tokenizer, messages)
    closing = text[text.rindex(answer) + len(answer) : end].strip()
    ids = tokenizer(closing, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        raise DataError(
            f"the chat template ends answers with {closing!r}, which is no special token, so that none would mark "
            "their end: give a tokenizer whose template ends each message with one."
        )
    return int(ids[0])
