"""Names of configurations that stand for two files: one of a model and one of a task."""

from pathlib import Path

#: Options that name a configuration.
OPTIONS = ("--config", "-c")
#: Model -> the form in which the paper gives it a task, where the task has several: the end of the file's name.
_FORMS = {
    **dict.fromkeys(("opt1.3b", "opt6.7b", "llama2_7b", "gptj_6b", "deepseek_coder_1.3b", "smollm2"), "prompt"),
    **dict.fromkeys(("bert_large", "roberta_base"), "30_epochs"),
}


def shipped() -> Path:
    """Return the folder of the configurations that come with the package: inside it, or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.exists() else package.parent / "configs"


def parts(path: Path) -> list[Path]:
    """Return the files that a configuration consists of.

    Where there is no file ``configs/MODEL_TASK.yaml``, the name stands for ``configs/model/MODEL.yaml`` and
    ``configs/task/TASK.yaml``, the latter in the form that suits the model. A folder ``configs`` that is not there
    stands for the one that comes with the package.

    Args:
        path: The name of a configuration.

    Returns:
        The path itself if there is such a file, or no such model or task.
    """
    if path.exists():
        return [path]
    if path.parts[:1] == ("configs",) and not Path("configs").exists():
        found = parts(shipped().joinpath(*path.parts[1:]))
        return found if found[0].exists() else [path]
    for model in sorted((path.parent / "model").glob("*.yaml")):
        task = path.stem.removeprefix(f"{model.stem}_")
        names = [f"{task}_{_FORMS[model.stem]}", task] if model.stem in _FORMS else [task]
        forms = [path.parent / "task" / f"{name}{path.suffix}" for name in names]
        if task != path.stem and (found := [file for file in forms if file.exists()]):
            return [model, found[0]]
    return [path]


def with_parts(arguments: list[str]) -> list[str]:
    """Return a command line with the files that its configurations consist of."""
    expanded: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in OPTIONS:
            expanded += [f"{name}={part}" for part in parts(Path(value))]
        elif expanded and expanded[-1] in OPTIONS:
            option = expanded.pop()
            expanded += [word for part in parts(Path(argument)) for word in (option, str(part))]
        else:
            expanded.append(argument)
    return expanded
