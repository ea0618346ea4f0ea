"""Conversations as a task: every answer of the assistant is learnt, and the last one generated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from beft_lightning.data.column_task import ColumnExample, ColumnTask
from beft_lightning.data.generation import Generation
from beft_lightning.errors import DataError

#: Who may speak in a conversation.
ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"


@dataclass(frozen=True)
class Conversation(ColumnExample):
    """A conversation with a language model.

    Args:
        messages: The messages, each with its ``role``, one of :data:`ROLES`, and its ``content``.
    """

    messages: tuple[Mapping[str, str], ...]

    @property
    def prompt(self) -> tuple[Mapping[str, str], ...]:
        """What is before the answer to generate: the last message if it is the assistant's, or else a new one."""
        return self.messages[:-1] if self.messages[-1]["role"] == ASSISTANT else self.messages


@dataclass(frozen=True, kw_only=True)
class ChatTask(ColumnTask):
    """Conversations for causal language models with a chat template.

    Args:
        column: Column of the conversation: a list of messages, each with ``role`` and ``content``.
        generation: How answers are generated; the chat template says what ends them.
    """

    kinds = ("chat",)

    kind: Literal["chat"] = "chat"
    metrics: tuple[str, ...] = ("answer_f1", "answer_em")
    max_length: int = 2048
    generation: Generation = field(default_factory=lambda: Generation(stop="end_of_text"))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the task of a record of :meth:`to_dict`."""
        return cls(
            name=record["name"],
            max_length=record["max_length"],
            column=record["column"],
            generation=Generation(**record["generation"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task of one column, and how answers are generated."""
        return {**super().to_dict(), "generation": self.generation.to_dict()}

    def to_learn(self, value: Any, where: str) -> Conversation:
        """Return the conversation up to its last answer, as nothing is learnt from what follows."""
        messages = check_messages(value, self.column, where)
        answers = [place for place, message in enumerate(messages) if message["role"] == ASSISTANT]
        if not answers:
            raise DataError(
                f"{where}: the conversation in column {self.column!r} has no message of the assistant to learn."
            )
        return Conversation(tuple(messages[: answers[-1] + 1]))

    def to_predict(self, value: Any, where: str) -> Conversation:
        """Return the conversation up to the answer to generate; a text alone is a message of the user."""
        messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
        prompt = Conversation(tuple(check_messages(messages, self.column, where))).prompt
        if not prompt:
            raise DataError(f"{where}: the conversation in column {self.column!r} has no message to answer.")
        return Conversation(prompt)


def check_messages(messages: Any, column: str, where: str) -> list[dict[str, str]]:
    """Return the messages of a conversation with role and content alone.

    Args:
        messages: The value of a cell.
        column: Name of the column.
        where: File and row.

    Raises:
        DataError: If it is no list of messages, a role is unknown, or a content is empty or no text.
    """
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: column {column!r} is no list of messages but {messages!r}. A conversation is a list such as "
            '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], in a JSONL or Parquet '
            "file."
        )
    for number, message in enumerate(messages, start=1):
        place = f"{where}: message {number} of column {column!r}"
        if not isinstance(message, Mapping) or message.get("role") is None or "content" not in message:
            raise DataError(f"{place} has no role and content: {message!r}.")
        if message["role"] not in ROLES:
            raise DataError(f"{place} has the unknown role {message['role']!r}; choose one of: {', '.join(ROLES)}.")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise DataError(f"{place} has a content that is empty or no text: {message['content']!r}.")
    return [{"role": message["role"], "content": message["content"]} for message in messages]
