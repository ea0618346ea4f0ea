"""Conversations as a task: every answer of the assistant is learnt, and the last one generated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from beft_lightning.data.generation import Generation
from beft_lightning.data.sources import Row
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError

#: Who may speak in a conversation.
ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"


@dataclass(frozen=True)
class Conversation:
    """A conversation with a language model.

    Args:
        messages: The messages, each with its ``role``, one of :data:`ROLES`, and its ``content``.
        id: Number to report the prediction under; by default the conversation's place in its split.
        where: File and row, for error messages.
    """

    messages: tuple[Mapping[str, str], ...]
    id: int | None = None
    where: str = ""

    @property
    def prompt(self) -> tuple[Mapping[str, str], ...]:
        """What is before the answer to generate: the last message if it is the assistant's, or else a new one."""
        return self.messages[:-1] if self.messages[-1]["role"] == ASSISTANT else self.messages


@dataclass(frozen=True, kw_only=True)
class ChatTask(TaskRecord):
    """Conversations for causal language models with a chat template.

    Args:
        messages: Column of the conversation: a list of messages, each with ``role`` and ``content``.
        generation: How answers are generated; the chat template says what ends them.
    """

    kinds = ("chat",)
    adds_head = False

    kind: Literal["chat"] = "chat"
    metrics: tuple[str, ...] = ("answer_f1", "answer_em")
    epochs: int = 5
    max_length: int = 2048
    messages: str = "messages"
    generation: Generation = field(default_factory=lambda: Generation(stop="end_of_text"))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the task of a record of :meth:`to_dict`, without metrics."""
        return cls(
            name=record["name"],
            max_length=record["max_length"],
            messages=record["messages"],
            generation=Generation(**record["generation"]),
            metrics=(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task, the column, and how answers are generated."""
        return {**super().to_dict(), "messages": self.messages, "generation": self.generation.to_dict()}

    def parse_row(self, row: Row, where: str) -> list[Conversation]:
        """Return the conversation of a row up to its last answer, as nothing is learnt from what follows."""
        messages = check_messages(self._column(row, where), self.messages, where)
        answers = [place for place, message in enumerate(messages) if message["role"] == ASSISTANT]
        if not answers:
            raise DataError(
                f"{where}: the conversation in column {self.messages!r} has no message of the assistant to learn."
            )
        return [Conversation(tuple(messages[: answers[-1] + 1]), where=where)]

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the conversation."""
        return (self.messages,)

    def parse_input(self, row: Row, where: str) -> list[tuple[Row, Conversation]]:
        """Return the row and the conversation up to the answer to generate; a text is a message of the user."""
        given = self._column(row, where)
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        prompt = Conversation(tuple(check_messages(given, self.messages, where))).prompt
        if not prompt:
            raise DataError(f"{where}: the conversation in column {self.messages!r} has no message to answer.")
        return [(row, Conversation(prompt, where=where))]

    def _column(self, row: Row, where: str) -> Any:
        if self.messages not in row:
            raise DataError(f"{where}: no column {self.messages!r}; there are: {', '.join(map(str, row))}.")
        return row[self.messages]

    def numbered(self, examples: Sequence[Conversation]) -> list[Conversation]:
        """Give each conversation that has no id its place in the split."""
        return [replace(e, id=place) if e.id is None else e for place, e in enumerate(examples)]

    def check_baselines(self, demonstrations: int, calibrate: bool) -> None:
        """Check that there are none: they belong to prompts."""
        if demonstrations or calibrate:
            raise DataError(f"demonstrations and calibrate belong to prompts, and {self.name} holds conversations.")


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
