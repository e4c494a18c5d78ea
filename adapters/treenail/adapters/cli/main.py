"""Arguments of the commands, and errors as one line with an exit code.

Exit codes: 0 done, 1 failed while running, 2 wrong input (config, arguments, checkpoint), 130 and 143 stopped by SIGINT
and SIGTERM with a checkpoint saved.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from treenail.kernel import (
    BuildError,
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    RegistryError,
    SpecError,
    TreenailError,
)

_WRONG_INPUT = (ConfigError, BuildError, CheckpointError, SpecError, RegistryError, MissingDependencyError)

_MODULES = {
    "train": "commands",
    "test": "commands",
    "check": "checking",
    "freeze": "freezing",
    "config": "configs",
    "schema": "writing",
    "template": "writing",
    "completion": "completion",
    "complete": "completion",
    "export": "commands",
    "adapters": "commands",
}
"""Where each command is; only `commands` imports torch."""

_OVERRIDES = (
    "key=value pairs change parts of the config: optimizer.lr=3e-4 schedules.0.every=step; "
    "+key=value adds what is not there, ~key removes: +hooks.best={type: best, metric: val/loss} ~hooks.timer"
)

_OVERLAYS = "a file that is merged over the config: configs/deploy/s3.yaml; several are allowed, later ones win"
_IMPORTS = "a prefix of modules that `type: module:name` may import from, besides the config's own `imports:`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        arguments: Those after the program's name; the process's own when None.
    """
    options = _parse(arguments)
    sys.path.append(os.getcwd())  # modules that a config's `imports` allow may lie beside it; installed ones win
    try:
        return _run(options)
    except KeyboardInterrupt:
        return _report(
            "interrupted; nothing of this attempt is lost that a checkpoint holds", 128 + signal.SIGINT, options
        )
    except TreenailError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return _report(f"{error}{notes}", 2 if isinstance(error, _WRONG_INPUT) else 1, options)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return 1
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        detail = " ".join(str(error).split())
        if "Original Traceback" in detail:  # a loader worker's exception, with all of its traceback as the message
            detail = f"{detail.partition(' Original Traceback')[0]} {str(error).strip().splitlines()[-1]}"
        return _report(f"{type(error).__name__}: {detail}{notes}; --debug shows where", 1, options)


def _run(options: argparse.Namespace) -> int:
    module = importlib.import_module(f"treenail.adapters.cli.{_MODULES[options.command]}")
    return int(getattr(module, options.command)(options))


def _reader_left() -> bool:
    """Return whether nobody reads our output any more (``treenail adapters | head -1``)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it once more at exit
        return True
    return False


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes no positional argument after an option, but people write key=value anywhere.
    late = [each for each in rest if _is_override(each)] if "overrides" in options else []
    if len(late) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(each for each in rest if each not in late)}")
    if late:
        options.overrides = [*options.overrides, *late]
    return options


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _report(message: str, code: int, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exc()
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"treenail {version('treenail')}")
        parser.exit()


def _add_config(command: argparse.ArgumentParser) -> None:
    parts = command.add_subparsers(dest="subcommand", required=True, metavar="WHAT")
    show = parts.add_parser(
        "show",
        help="print a config as one file",
        description="Print a config as one file: bases, overlays and overrides in it, secrets covered.",
    )
    show.add_argument("config", type=Path, help="a .yaml, .json or .toml file")
    show.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    show.add_argument("--with", dest="overlays", type=Path, action="append", default=[], metavar="FILE", help=_OVERLAYS)
    show.add_argument("--format", choices=["yaml", "json", "toml"], default="yaml", help="of the text (default: yaml)")
    show.add_argument("--out", type=Path, metavar="FILE", help="write it to a file, with its secrets, instead")
    change = parts.add_parser(
        "set",
        help="edit a config file",
        description="Edit a config file in place: comments, order and layout of the rest stay. An edit that would make a "
        "mistake is refused.",
    )
    change.add_argument("config", type=Path, help="a .yaml, .json or .toml file")
    change.add_argument("overrides", nargs="+", metavar="key=value", help=_OVERRIDES)
    change.add_argument("--force", action="store_true", help="write it although it has mistakes then")
    for part in (show, change):
        part.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_sources(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--with", dest="overlays", type=Path, action="append", default=[], metavar="FILE", help=_OVERLAYS
    )
    command.add_argument("--allow-import", dest="imports", action="append", default=[], metavar="PREFIX", help=_IMPORTS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="treenail", description="Train PyTorch models from checked configs.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks")
        return command

    train = add(
        "train",
        "train a model",
        "Train the run that a config describes, then test it if the config has a test.\n\n"
        "Checkpoints, curves and logs go to the work directory. Ctrl-C and SIGTERM stop at the next step,\n"
        "with a checkpoint; --resume goes on from the latest one, exactly where the run stood.",
    )
    train.add_argument("config", type=Path, help="a .yaml file, or a .py file with a variable 'run'")
    train.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    _add_sources(train)
    train.add_argument(
        "--work-dir", type=Path, metavar="D", help="where everything goes; by default work_dirs/CONFIG/001, 002 …"
    )
    train.add_argument("--resume", action="store_true", help="go on from the latest checkpoint (of the newest run)")
    train.add_argument(
        "--checkpoint", metavar="NAME", help="with --resume: another one than the latest: best, step-00000200"
    )
    train.add_argument(
        "--allow-changes",
        action="store_true",
        help="resume although the config changed in a way that changes the result",
    )

    test = add("test", "test a checkpoint", "Run the test of a config with the weights of a checkpoint.")
    test.add_argument("config", type=Path, help="the config the checkpoint was trained with")
    test.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    _add_sources(test)
    test.add_argument(
        "--checkpoint", type=Path, required=True, metavar="P", help="…/checkpoints/best, …/latest, or one's directory"
    )

    check = add(
        "check",
        "check configs",
        "Check configs and build nothing.\n\n"
        "Every mistake is a line 'file:line:column: path: message', all mistakes at once; exit code 2 if there is one.",
    )
    check.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help=".yaml and .py files")
    check.add_argument("--set", dest="overrides", action="append", default=[], metavar="key=value", help=_OVERRIDES)

    _add_sources(check)
    check.add_argument(
        "--fresh", action="store_true", help="derive all schemas anew instead of reading the stored ones"
    )

    check.add_argument(
        "--mypy",
        action="store_true",
        help="let mypy --strict check them too, YAML as the Python that freeze prints; directories are searched",
    )

    freeze = add(
        "freeze",
        "print a config as typed Python",
        "Print the typed Python that describes the same run as a config; mypy --strict accepts it.",
    )
    freeze.add_argument("config", type=Path, help="a .yaml, .json or .toml file")
    freeze.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    _add_sources(freeze)

    schema = add(
        "schema",
        "write the JSON Schema of a config",
        "Write the JSON Schema of a run, with every component that is installed here, for an editor's YAML language server.",
    )
    schema.add_argument("--out", type=Path, metavar="FILE", help="where to; printed if not given")
    schema.add_argument("--component", metavar="NAME", help="of one component instead of a run")
    template = add(
        "template",
        "print a component's YAML skeleton",
        "Print a registered component as commented YAML: every parameter with what it takes, its default and its\n"
        "description.",
    )
    template.add_argument(
        "name", metavar="NAME", help="`run`, or a component: adamw, loss:l1_loss, package.module:Class"
    )
    for each in (schema, template):
        each.add_argument(
            "--allow-import", dest="imports", action="append", default=[], metavar="PREFIX", help=_IMPORTS
        )
    completion = add(
        "completion",
        "print a shell's completion script",
        'Print a completion script: eval "$(treenail completion bash)" in ~/.bashrc.',
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    complete = commands.add_parser("complete")  # asked by the scripts only; without help=, the help does not list it
    complete.add_argument("words", nargs="*")
    complete.add_argument("--line")
    complete.set_defaults(parser=parser, debug=False)

    _add_config(add("config", "show or edit a config", "Show a config as one file, or edit a config file."))

    export = add(
        "export",
        "export a checkpoint's model",
        "Export the model of a checkpoint. The artefact is compared with the model and only then published.",
    )
    export.add_argument("config", type=Path, help="the config the checkpoint was trained with")
    export.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    _add_sources(export)
    export.add_argument("--checkpoint", type=Path, required=True, metavar="P", help="as for test")
    export.add_argument(
        "--format", default="onnx", metavar="F", help="an exporter of `treenail adapters` (default: onnx)"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="path of the artefact")

    add(
        "adapters",
        "list ports and adapters",
        "List every port, its adapters by the names a config uses, and whether each is ready here or what to install.",
    )
    return parser
