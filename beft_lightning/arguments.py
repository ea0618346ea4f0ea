"""A command line in the form that the parser takes."""

import json
from importlib import import_module

from beft_lightning.errors import BeftError

#: Options that name a class, and where it is looked for if it is given without its module.
_HOMES = {
    "--model.optimizer": ("torch.optim",),
    "--model.lr_scheduler": ("lightning.pytorch.cli", "torch.optim.lr_scheduler"),
}
#: Command -> its option for a checkpoint or adapter, of which ``--adapter`` is another name.
_TRAINED = {"validate": "--ckpt_path", "test": "--ckpt_path", "predict": "--ckpt_path", "export": "--checkpoint"}


def with_adapter(arguments: list[str]) -> list[str]:
    """Return a command line with ``--ckpt_path``, or ``--checkpoint`` of ``export``, for ``--adapter``.

    Raises:
        BeftError: If both are given.
    """
    own = _TRAINED.get(arguments[0])
    names = [argument.partition("=")[0] for argument in arguments]
    if own is None or "--adapter" not in names:
        return arguments
    if own in names:
        raise BeftError(f"--adapter and {own} are two names of one option: give one of them.")
    return [
        own + argument.removeprefix("--adapter") if name == "--adapter" else argument
        for argument, name in zip(arguments, names, strict=True)
    ]


def for_parser(arguments: list[str]) -> list[str]:
    """Write lists and switches in the form that the parser takes.

    Args:
        arguments: A command and its options.

    Returns:
        The same with ``--tune=["value", "query"]`` for ``--tune value query``, ``--seeds`` of ``compare`` likewise,
        with ``--json=true`` for the switch ``--json`` of ``plan``, ``--seconds`` likewise, with ``--data`` before its
        options, and with ``torch.optim.SGD`` for ``SGD``.
    """
    command, *options = arguments
    if command == "compare":
        options = with_lists(options)
    if command == "plan":
        options = with_switches(options)
    return [command, *with_class_paths(with_data_first(options))]


def with_data_first(arguments: list[str]) -> list[str]:
    """Return the options with ``--data Table`` before the first ``--data.OPTION``: the parser takes it as the owner."""
    names = [argument.partition("=")[0] for argument in arguments]
    first = next((place for place, name in enumerate(names) if name.startswith("--data.")), len(names))
    if "--data" not in names[first:]:
        return arguments
    place = names.index("--data", first)
    end = place + (1 if "=" in arguments[place] else 2)
    return [*arguments[:first], *arguments[place:end], *arguments[first:place], *arguments[end:]]


def with_class_paths(arguments: list[str]) -> list[str]:
    """Return the options with ``torch.optim.SGD`` for ``SGD``, of which other packages may have one, too."""
    result = []
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):  # the value of the option before it
            name, value = option, argument
        homes = _HOMES.get(name, ()) if value and "." not in value else ()
        home = next((home for home in homes if hasattr(import_module(home), value)), None)
        path = value if home is None else f"{home}.{value}"
        result.append(argument.removesuffix(value) + path)
        option = "" if equals else name
    return result


def with_switches(arguments: list[str]) -> list[str]:
    """Return the options with ``--json=true`` for a ``--json`` that has no value; ``--seconds`` likewise."""
    following = [*arguments[1:], "--"]
    return [
        f"{argument}=true" if argument in ("--json", "--seconds") and value.startswith("-") else argument
        for argument, value in zip(arguments, following, strict=False)
    ]


def with_lists(arguments: list[str]) -> list[str]:
    """Return the options with ``--tune=["value", "query"]`` for ``--tune value query``; ``--seeds`` likewise."""
    lists: dict[str, list[str]] = {}
    rest: list[str] = []
    into: list[str] = rest
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        # A list in brackets is in the parser's form.
        if name in ("--tune", "--seeds") and not (value if equals else following).startswith("["):
            into = lists.setdefault(name, [])
            into += [value] if equals else []
        elif argument.startswith("-"):
            into = rest
            rest.append(argument)
        else:
            into.append(argument)
    as_text = {"--tune": json.dumps(lists.get("--tune")), "--seeds": f"[{','.join(lists.get('--seeds', []))}]"}
    return [*rest, *(f"{name}={as_text[name]}" for name in lists)]
