"""Hooks where Lightning has none."""

from collections.abc import Callable
from typing import Any


def call_before(owner: Any, name: str, action: Callable[[], object]) -> None:
    """Call ``action`` once, right before the next call of ``owner.name``."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        owner.__dict__.pop(name, None)
        action()
        return original(*args, **kwargs)

    owner.__dict__[name] = call


def call_after(owner: Any, name: str, action: Callable[[], object]) -> None:
    """Call ``action`` once, right after the next call of ``owner.name``."""
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        owner.__dict__.pop(name, None)
        result = original(*args, **kwargs)
        action()
        return result

    owner.__dict__[name] = call
