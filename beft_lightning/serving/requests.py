"""What clients send: the bodies of requests, checked."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beft_lightning.serving.sampling import Sampling

#: Name of the base without an adapter, where a request names its adapter.
BASE_NAME = "base"
#: Most texts, rows or options in a request.
_MOST = 256
#: Most texts that end an answer, as OpenAI has it, and most characters of one: each token is searched for all of them.
_MOST_STOPS, _LONGEST_STOP = 4, 256
#: What pydantic calls a value of another type than one that a field may be of.
_OTHER_TYPE = ("string_type", "dict_type", "list_type")
#: What pydantic writes in a place for a type that a field may be of.
_ALTERNATIVE = re.compile(r"str|constrained-str|\w+\[.*")
_Stop = Annotated[str, Field(max_length=_LONGEST_STOP)]


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

    input: str | dict[str, Any] | Annotated[list[str | dict[str, Any]], Field(min_length=1, max_length=_MOST)]

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
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class _TextBody(_Body):
    """What both kinds of text completion have in common; names and meanings are OpenAI's."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    # What a generator of torch takes.
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_MOST_STOPS)] | None = None
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
    errors = error.errors(include_url=False)
    # Of a field that may be of one type or another, what is wrong with the one that it is of.
    first = next((one for one in errors if one["type"] not in _OTHER_TYPE), errors[0])
    if first["type"] == "json_invalid":
        return f"the body is no JSON: {first['ctx']['error']}"
    names = [str(part) for part in first["loc"] if not _ALTERNATIVE.fullmatch(str(part))]
    return f"{'.'.join(names) or 'body'}: {first['msg']}"
