"""``python -m beft_lightning``: answer what needs no heavy import at once, and leave the rest to the CLI."""

import os
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path

from beft_lightning import __version__
from beft_lightning.arguments import for_parser, with_adapter
from beft_lightning.configurations import OPTIONS, with_parts
from beft_lightning.errors import BeftError, system_error
from beft_lightning.parsers import (
    SUBCOMMANDS,
    export_parser,
    plot_parser,
    predict_parser,
    predicts_new_texts,
    serve_parser,
)
from beft_lightning.resume import NAMES
from beft_lightning.signals import Interrupted, end_at_once, handled

#: What a command that a signal has ended does when it is started again, other than to begin anew.
_KEPT = {"compare": " It keeps the runs that are finished, and goes on with the others."}

_HELP = """usage: python -m beft_lightning COMMAND --config FILE [--OPTION VALUE ...]
       python -m beft_lightning export --checkpoint FILE --format FORMAT --out FOLDER
       python -m beft_lightning predict --ckpt_path FILE --input TABLE --out PREDICTIONS.jsonl
       python -m beft_lightning plot --folder FOLDER
       python -m beft_lightning serve --base BACKBONE --adapters FOLDER

Bias-efficient fine-tuning of language models.

commands:
{commands}

Every option of the configuration can also be given on the command line, for example
  python -m beft_lightning fit --config configs/minilm_sst2.yaml --data.data_dir DIR --trainer.max_epochs 3

`python -m beft_lightning COMMAND --help` lists a command's options, `--version` prints the version.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows ``python -m beft_lightning``; by default those of this process.

    Returns:
        The exit status: 0, 2 if the user has to change something, or 128 plus the number of the signal that ended it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:<10} {text}" for name, text in SUBCOMMANDS.items())
        print(_HELP.format(commands=commands), end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    status = 0
    try:
        with handled(end_at_once):
            arguments = with_parts(arguments)
            _check(arguments)
            arguments = with_adapter(arguments)
            if arguments[0] in ("export", "serve", "plot") or predicts_new_texts(arguments):
                _run_plain(arguments[0], arguments[1:])
            else:
                _run(arguments[0], for_parser(arguments))
    except Interrupted as interrupted:
        if not interrupted.reported:  # otherwise the callback has said so
            print(f"{interrupted}{_KEPT.get(arguments[0], '')}", file=sys.stderr)
        return 128 + interrupted.signum
    except Exception as error:
        explained = error if isinstance(error, BeftError) else system_error(error)
        if explained is None:
            raise
        print(f"error: {explained}", file=sys.stderr)
        status = 2
    # Here, neither the command nor a traceback holds the trainer any more. After any other error, to leave could mean
    # to wait for the other processes before the traceback is shown.
    if collectives := sys.modules.get("beft_lightning.strategies.collectives"):
        collectives.destroy_process_group()
    return status


def _run_plain(command: str, arguments: list[str]) -> None:
    """Run a command that has no configuration; its parser is asked before anything heavy is imported."""
    parsers = {"export": export_parser, "serve": serve_parser, "plot": plot_parser, "predict": predict_parser}
    options = vars(parsers[command]().parse_args(arguments))
    from beft_lightning.log_noise import leave_out_noise

    leave_out_noise(command)
    if command == "export":
        from beft_lightning.export import export

        export(**options)
    elif command == "serve":
        from beft_lightning.commands.serve import serve

        serve(**options)
    elif command == "plot":
        from beft_lightning.commands.plot import plot

        plot(**options)
    else:
        from beft_lightning.commands.predict import predict

        predict(options.pop("ckpt_path"), options.pop("input"), options.pop("out"), **options)


def _run(command: str, arguments: list[str]) -> None:
    """Run a command with a configuration."""
    from beft_lightning.cli import ArgumentError, BeftCLI, MisconfigurationException
    from beft_lightning.log_noise import leave_out_noise

    leave_out_noise(command)
    # Lightning warns of two command lines; ours is that of this process in another form.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    try:
        BeftCLI(args=arguments)
    except MisconfigurationException as error:
        raise BeftError(f"{error}") from error
    except ArgumentError as error:
        raise BeftError(f"{error}\n`python -m beft_lightning {command} --help` lists the options.") from error
    except RuntimeError as error:
        if lost := lost_contact(error):
            raise lost from error
        raise
    except ValueError as error:
        # jsonargparse wraps the errors that our classes raise about their arguments, or meet when they are made.
        if isinstance(error.__cause__, (BeftError, OSError, MemoryError)):
            raise error.__cause__ from None
        if missing := missing_package(error):
            raise missing from error
        raise


def missing_package(error: BaseException) -> BeftError | None:
    """Recognize that a class was not made for want of a package, such as a logger.

    Args:
        error: An error whose cause, or a cause of that, may be of the import.

    Returns:
        The error to show to the user, or ``None`` if ``error`` is another one.
    """
    cause = error.__cause__
    if isinstance(cause, ModuleNotFoundError):
        return BeftError(f"a package is missing: {cause}")
    return None if cause is None else missing_package(cause)


def lost_contact(error: RuntimeError) -> BeftError | None:
    """Recognize the error of a run whose processes did not find, or have lost, each other.

    Args:
        error: An error of a run.

    Returns:
        The error to show to the user, or ``None`` if ``error`` is another one.
    """
    from torch.distributed import DistError, DistStoreError

    # Gloo's errors have no class of their own.
    if not isinstance(error, DistError) and "gloo" not in str(error):
        return None
    reason = str(error).strip().splitlines()[0]
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    rank, size = os.environ.get("RANK", "?"), os.environ.get("WORLD_SIZE", "?")
    if isinstance(error, DistStoreError):
        return BeftError(
            f"not all of the {size} processes have met at {place} ({reason}). Check that every node was started with "
            "this address and port and can reach it, and that num_nodes and devices multiply to the number of "
            "processes; trainer.strategy.init_args.timeout says how long to wait."
        )
    return BeftError(
        f"process {rank} of {size} has lost contact with the others ({reason}). One of them has failed or was stopped; "
        "its own output says why. To go on, start all of them again with --ckpt_path and the newest checkpoint."
    )


def _check(arguments: list[str]) -> None:
    """Check the command and the files before anything heavy is imported."""
    command = arguments[0]
    if command.startswith("-"):
        raise BeftError(f"{command}: options follow the command, as in `python -m beft_lightning fit {command} ...`.")
    if command not in SUBCOMMANDS:
        close = get_close_matches(command, SUBCOMMANDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise BeftError(f"no command {command!r}; choose one of: {', '.join(SUBCOMMANDS)}.{hint}")
    for position, argument in enumerate(arguments):
        for option in (*OPTIONS, "--ckpt_path", "--checkpoint", "--adapter", "--input"):
            if argument == option:
                value = arguments[position + 1] if position + 1 < len(arguments) else ""
            elif argument.startswith(f"{option}="):
                value = argument.removeprefix(f"{option}=")
            else:
                continue
            if (value in (*NAMES, "null") and option == "--ckpt_path") or (option, value) == ("--input", "-"):
                continue
            if not Path(value).exists():
                compose = ""
                if option in OPTIONS:
                    compose = " A model and a task compose: --config configs/model/M.yaml --config configs/task/T.yaml."
                raise BeftError(f"{option} {value}: no such file (looked in {Path.cwd()}).{compose}")


if __name__ == "__main__":
    sys.exit(main())
