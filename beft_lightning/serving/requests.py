"""What clients send: the bodies of requests, checked."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beft_lightning.serving.sampling import Sampling

#: Name of the base without an adapter, where a request names its adapter.
BASE_NAME = "base"
#: Most texts, rows or options in a request.
_MOST = 256


class _Body(BaseModel):
    """A body without fields that it does not know: an option that is not served is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str


class ClassifyBody(_Body):
    """The body of ``/v1/classify``.

    Args:
        model: Name of the adapter.
        input: A text, a row with the columns of the task, or a list of them.
    """

    input: str | dict[str, Any] | list[str | dict[str, Any]]

    @property
    def inputs(self) -> list[str | dict[str, Any]]:
        """The input as a list."""
        return self.input if isinstance(self.input, list) else [self.input]


class ScoreBody(_Body):
    """The body of ``/v1/score``.

    Args:
        model: Name of the adapter.
        prompt: The text before the options.
        options: The texts that may follow, with the white space that separates them from the prompt.
    """

    prompt: str
    options: list[str] = Field(min_length=1, max_length=_MOST)


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _TextBody(_Body):
    """What both kinds of text completion have in common; names and meanings are OpenAI's."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: Literal[1] = 1
    user: str | None = None

    @property
    def wanted(self) -> int | None:
        """Most tokens to generate, if the request says."""
        return self.max_tokens

    def sampling(self, max_tokens: int) -> Sampling:
        """Return how the answer is sampled."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(max_tokens, self.temperature, self.top_p, self.seed, tuple(text for text in stop if text))


class CompletionBody(_TextBody):
    """The body of ``/v1/completions``."""

    prompt: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(_TextBody):
    """The body of ``/v1/chat/completions``."""

    messages: list[_Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def wanted(self) -> int | None:
        """Most tokens to generate, by either of OpenAI's names."""
        return self.max_completion_tokens or self.max_tokens


#: The body of each route.
BODIES: Mapping[str, type[_Body]] = {
    "classify": ClassifyBody,
    "score": ScoreBody,
    "completions": CompletionBody,
    "chat": ChatBody,
}


def problem_of(error: ValidationError) -> str:
    """Return what is wrong with a body, and where."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "body"
    return f"{place}: {first['msg']}"
