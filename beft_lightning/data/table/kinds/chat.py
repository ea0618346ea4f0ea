"""Tables with a conversation in each row."""

from datasets import Dataset

from beft_lightning.data.chat_task import ChatTask
from beft_lightning.data.generation import Generation
from beft_lightning.data.table.kinds.generation import MAX_NEW_TOKENS
from beft_lightning.data.table.kinds.unlabelled import UnlabelledKind
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


class Chat(UnlabelledKind):
    """Conversations: ``--data.messages``."""

    name = "chat"
    takes = ("messages",)
    options = "--data.messages"

    @property
    def needed(self) -> tuple[str, ...]:
        """The column of the conversations.

        Raises:
            DataError: If none is given.
        """
        if self.columns.messages is None:
            raise DataError("--data.kind chat needs the column of the conversations: give --data.messages.")
        return (self.columns.messages,)

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record with the name of the column."""
        (messages,) = self.needed
        return ChatTask(name=self.task_name, column=messages, generation=Generation(MAX_NEW_TOKENS, "end_of_text"))

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return how long the answers may be."""
        assert isinstance(task, ChatTask)
        return f"conversations, the assistant's answers are learnt, up to {task.generation.max_new_tokens} tokens"
