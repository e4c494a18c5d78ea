"""The arguments of every command."""

from __future__ import annotations

import argparse
from pathlib import Path

_CONFIG = "a .yaml, .json or .toml file, or its URI; or a .py file with a variable 'run'"
_DATA = "a .yaml, .json or .toml file, or its URI"
_OVERRIDES = (
    "key=value pairs change parts of the config: optimizer.lr=3e-4 schedules.0.every=step; "
    "+key=value adds what is not there, ~key removes: +hooks.best={type: best, metric: val/loss} ~hooks.timer"
)
_WEIGHTS = (
    "…/checkpoints/best, …/latest, one's directory, or a file of weights (.safetensors, .pt, .pth, .ckpt); or its URI"
)
_OVERLAYS = "a file that is merged over the config: configs/deploy/server.yaml; several are allowed, later ones win"
_IMPORTS = "a prefix of modules that `type: module:name` may import from, besides the config's own `imports:`"


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``treenail``."""
    whole = argparse.ArgumentParser(prog="treenail", description="Train PyTorch models from checked configs.")
    whole.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    # Old launchers give a script its local rank this way; the environment says it, too, and that counts.
    whole.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    commands = _Commands(whole)
    _train(commands)
    _test(commands)
    _predict(commands)
    _check(commands)
    _config(commands)
    _find_lr(commands)
    _find_batch_size(commands)
    _freeze(commands)
    _schema(commands)
    _template(commands)
    _plot_schedule(commands)
    _export(commands)
    _consolidate(commands)
    _inspect(commands)
    _convert(commands)
    _copy(commands)
    _launch(commands)
    _logs(commands)
    commands.add(
        "adapters",
        "list ports and adapters",
        "List every port, its adapters by the names a config uses, and whether each is ready here or what to install.",
    )
    _completion(commands, whole)
    return whole


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"treenail {version('treenail')}")
        parser.exit()


class _Commands:
    def __init__(self, parser: argparse.ArgumentParser, dest: str = "command", metavar: str = "COMMAND") -> None:
        self.parsers = parser.add_subparsers(dest=dest, required=True, metavar=metavar)

    def add(self, name: str, summary: str, description: str) -> argparse.ArgumentParser:
        command = self.parsers.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--debug", action="store_true", help="show tracebacks")
        return command


def _location(text: str) -> object:
    from treenail.adapters.documents import location  # most words of a command line are no configs
    from treenail.kernel import ConfigError

    try:
        return location(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _local_directory(text: str) -> Path:
    from treenail.adapters.documents import Uri

    found = _location(text)
    if isinstance(found, Uri):
        mend = "a work directory is local; files.checkpoints=URI keeps the checkpoints of a run in a store"
        raise argparse.ArgumentTypeError(f"{found} lies in a store; {mend}")
    return Path(text)


def _add_sources(command: argparse.ArgumentParser, config: str) -> None:
    """Add what says where a config comes from."""
    command.add_argument("config", type=_location, help=config)
    command.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    _add_overlays(command)
    _add_imports(command)


def _add_overlays(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--with", dest="overlays", type=_location, action="append", default=[], metavar="FILE", help=_OVERLAYS
    )


def _add_imports(command: argparse.ArgumentParser) -> None:
    command.add_argument("--allow-import", dest="imports", action="append", default=[], metavar="PREFIX", help=_IMPORTS)


def _train(commands: _Commands) -> None:
    train = commands.add(
        "train",
        "train a model",
        "Train the run that a config describes, then test it if the config has a test.\n\n"
        "Checkpoints, curves and logs go to the work directory. Ctrl-C, SIGTERM and SIGUSR1 stop at the next step,\n"
        "with a checkpoint; --resume goes on from the latest one, exactly where the run stood.",
    )
    _add_sources(train, _CONFIG)
    train.add_argument(
        "--work-dir",
        type=_local_directory,
        metavar="D",
        help="where everything goes; by default work_dirs/CONFIG/001, 002 …",
    )
    begins = train.add_mutually_exclusive_group()
    begins.add_argument("--resume", action="store_true", help="go on from the latest checkpoint (of the newest run)")
    begins.add_argument(
        "--auto-resume",
        action="store_true",
        help="the same where there is one, else begin; for jobs that are started again and again, with a --work-dir of their "
        "own",
    )
    train.add_argument(
        "--checkpoint",
        metavar="P",
        help="with --resume: another one than the latest: best, step-00000200; or by its path or URI one of another run, from "
        "which a new one goes on",
    )
    train.add_argument(
        "--allow-changes",
        action="store_true",
        help="resume although the config changed in a way that changes the result",
    )
    train.add_argument(
        "--restart",
        action="append",
        default=[],
        metavar="PART",
        help="with --resume: let a part begin anew: schedules, with the config's learning rates; optimizer; repeatable",
    )
    train.add_argument(
        "--fast-dev-run",
        type=int,
        nargs="?",
        const=1,
        metavar="N",
        help="only try it: N batches (1) of training, validation and test, and keep nothing",
    )


def _test(commands: _Commands) -> None:
    test = commands.add(
        "test",
        "test a checkpoint",
        "Run the test of a config, or its validation, with the weights of a checkpoint or of a file, and print the results.",
    )
    test.add_argument("config", type=_location, help="the config the checkpoint was trained with")
    test.add_argument("checkpoint", nargs="?", help=_WEIGHTS)
    test.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    test.add_argument(
        "--checkpoint",
        dest="named",
        metavar="P",
        help="the same by name, for one that has '=' in it: epoch=9.ckpt",
    )
    test.add_argument("--data", default="test", help="of the config: test (default) or val; test/NAME of several")
    test.add_argument(
        "--work-dir", type=_local_directory, metavar="D", help="a new one for pictures, curves, logs; else no hook runs"
    )
    test.add_argument("--output", metavar="FILE", help="write the results to a JSON file, or its URI, too")
    _add_overlays(test)
    _add_imports(test)


def _predict(commands: _Commands) -> None:
    predict = commands.add(
        "predict",
        "write a checkpoint's predictions",
        "Write what the model of a checkpoint predicts for the data of a config, in their order, with the samples' indices.\n"
        "The file appears whole, at the end: what is ended before leaves none, or an earlier one, and is to be begun again.",
    )
    predict.add_argument("config", type=_location, help="the config the checkpoint was trained with")
    predict.add_argument("checkpoint", help=_WEIGHTS)
    predict.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    predict.add_argument(
        "--data", default="predict", help="of the config: predict (default), test or val; test/NAME of several"
    )
    predict.add_argument(
        "--files", nargs="+", default=[], metavar="F", help="predict for these files, with a dataset that takes 'files'"
    )
    predict.add_argument(
        "--output",
        default="predictions.jsonl",
        metavar="FILE",
        help="a .jsonl, .npy or .safetensors, or its URI (default: predictions.jsonl)",
    )
    _add_overlays(predict)
    _add_imports(predict)


def _check(commands: _Commands) -> None:
    check = commands.add(
        "check",
        "check configs",
        "Check configs and build nothing, but for --params.\n\n"
        "Every mistake is a line 'file:line:column: path: message', all mistakes at once; exit code 2 if there is one.",
    )
    check.add_argument("configs", type=_location, nargs="+", metavar="CONFIG", help=_CONFIG)
    check.add_argument("--set", dest="overrides", action="append", default=[], metavar="key=value", help=_OVERRIDES)
    _add_overlays(check)
    _add_imports(check)
    check.add_argument(
        "--fresh", action="store_true", help="derive all schemas anew instead of reading the stored ones"
    )
    further = check.add_mutually_exclusive_group()
    further.add_argument(
        "--params",
        action="store_true",
        help="build the model and the optimizer of each config, and show the groups of parameters",
    )
    further.add_argument(
        "--mypy",
        action="store_true",
        help="let mypy --strict check them too, YAML as the Python that freeze prints; directories are searched",
    )


def _config(commands: _Commands) -> None:
    config = commands.add("config", "show or edit a config", "Show a config as one file, or edit a config file.")
    parts = _Commands(config, "subcommand", "WHAT")
    show = parts.add(
        "show",
        "print a config as one file",
        "Print a config as one file: bases, overlays and overrides in it, secrets covered.",
    )
    show.add_argument("config", type=_location, help=_DATA)
    show.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    _add_overlays(show)
    show.add_argument(
        "--format", choices=["yaml", "json", "toml"], help="of the text (default: that of --out, else yaml)"
    )
    show.add_argument("--out", type=Path, metavar="FILE", help="write it to a file, with its secrets, instead")
    change = parts.add(
        "set",
        "edit a config file",
        "Edit a config file in place: comments, order and layout of the rest stay.\n\n"
        "An edit that would make a mistake is refused.",
    )
    change.add_argument("config", type=_location, help="a .yaml, .json or .toml file")
    change.add_argument("overrides", nargs="+", metavar="key=value", help=_OVERRIDES)
    change.add_argument("--force", action="store_true", help="write it although it has mistakes then")


def _find_lr(commands: _Commands) -> None:
    find = commands.add(
        "find-lr",
        "find a learning rate",
        "Train a few steps with a learning rate that grows until the loss diverges (the learning rate range test), draw the\n"
        "losses and say what they suggest. Nothing is kept.",
    )
    _add_sources(find, _CONFIG)
    find.add_argument("--out", type=Path, metavar="FILE", help="write the drawing to a .png, .pdf or .svg file, too")
    find.add_argument("--lowest", type=float, default=1e-7, metavar="LR", help="where to begin (default: 1e-7)")
    find.add_argument("--highest", type=float, default=10.0, metavar="LR", help="where to end (default: 10)")
    find.add_argument("--steps", type=int, default=100, metavar="N", help="how many steps (default: 100)")


def _find_batch_size(commands: _Commands) -> None:
    find = commands.add(
        "find-batch-size",
        "find the largest batch that fits",
        "Find the largest batch that one process can train with: of a GPU's memory, or of the main memory up to a limit.\n"
        "Sizes are doubled until one does not fit, then the gap is halved.",
    )
    _add_sources(find, _CONFIG)
    find.add_argument("--memory-limit", metavar="SIZE", help="on the CPU: what a run may take, as 8GiB")
    find.add_argument("--first", type=int, default=2, metavar="N", help="the size to begin with (default: 2)")
    find.add_argument("--most", type=int, metavar="N", help="the largest size of interest (default: the whole dataset)")


def _freeze(commands: _Commands) -> None:
    freeze = commands.add(
        "freeze",
        "print a config as typed Python",
        "Print the typed Python that describes the same run as a config; mypy --strict accepts it.",
    )
    _add_sources(freeze, _DATA)


def _schema(commands: _Commands) -> None:
    schema = commands.add(
        "schema",
        "write the JSON Schema of a config",
        "Write the JSON Schema of a run, with every component that is installed here, for an editor's YAML\n"
        "language server.",
    )
    schema.add_argument("--out", type=Path, metavar="FILE", help="where to; printed if not given")
    schema.add_argument("--component", metavar="NAME", help="of one component instead of a run")
    _add_imports(schema)


def _template(commands: _Commands) -> None:
    template = commands.add(
        "template",
        "print a component's YAML skeleton",
        "Print a component as commented YAML: every parameter with what it takes, its default and its description.",
    )
    template.add_argument(
        "name", metavar="NAME", help="`run`, or a component: adamw, loss:l1_loss, package.module:Class"
    )
    _add_imports(template)


def _plot_schedule(commands: _Commands) -> None:
    plot = commands.add(
        "plot-schedule",
        "draw what a config's schedules do",
        "Draw the learning rate, and what else a config schedules, over the whole run, without training.",
    )
    _add_sources(plot, _CONFIG)
    plot.add_argument(
        "--out", type=Path, metavar="FILE", help="an image, too: .png, .pdf or .svg (needs treenail[plot])"
    )
    plot.add_argument("--steps", type=int, metavar="N", help="training steps to draw (default: all of the run)")


def _export(commands: _Commands) -> None:
    export = commands.add(
        "export",
        "export a checkpoint's model",
        "Export the model of a checkpoint. The artefact is compared with the model and only then published.",
    )
    _add_sources(export, "the config the checkpoint was trained with")
    export.add_argument("--checkpoint", required=True, metavar="P", help=_WEIGHTS)
    export.add_argument(
        "--format", default="onnx", metavar="F", help="an exporter of `treenail adapters` (default: onnx)"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="path of the artefact")


def _consolidate(commands: _Commands) -> None:
    consolidate = commands.add(
        "consolidate",
        "write a checkpoint's tensors into one file",
        "Write the tensors of a checkpoint into one file of safetensors, whole, whatever number of ranks saved it.",
    )
    consolidate.add_argument("checkpoint", help="…/checkpoints/best, …/latest, or one's directory")
    consolidate.add_argument("--out", type=Path, required=True, metavar="FILE", help="path of the file")
    consolidate.add_argument(
        "--part",
        metavar="NAME",
        help="only the tensors of a part of the run, by their names in its own state: model (default: of all parts, "
        "as model/0.weight)",
    )
    consolidate.add_argument("--force", action="store_true", help="write over a file that is there")


def _inspect(commands: _Commands) -> None:
    inspect = commands.add(
        "inspect",
        "show what is in a checkpoint",
        "Show what a checkpoint holds: where it stands, its parts and their sizes. It may be one of ours, safetensors, a file\n"
        "of torch.save, mmengine's or Lightning's; no code in it is run.",
    )
    inspect.add_argument(
        "checkpoint", help="a directory, a pointer, a .safetensors, .pt, .pth or .ckpt file, or its URI"
    )
    inspect.add_argument(
        "--tensors", nargs="?", const="*", metavar="PATTERN", help="list tensors with their shapes: model/head.*"
    )


def _convert(commands: _Commands) -> None:
    convert = commands.add(
        "convert",
        "go on from a checkpoint of mmengine or Lightning",
        "Make a checkpoint that --resume goes on from, out of one of mmengine or Lightning: weights, optimizer, schedules,\n"
        "averages, loss scaler and position. What contradicts the config is an error; what is not taken is named.",
    )
    convert.add_argument("checkpoint", help="their .pth or .ckpt file, or its URI")
    convert.add_argument("work_dir", type=_local_directory, metavar="WORK_DIR", help="where the run will go on")
    convert.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    convert.add_argument("--config", type=_location, required=True, metavar="CONFIG", help=_CONFIG)
    _add_overlays(convert)
    _add_imports(convert)
    convert.add_argument("--prefix", default="", metavar="P", help="what a LightningModule calls the model: model")
    convert.add_argument(
        "--revise",
        action="append",
        default=[],
        metavar="PATTERN=NEW",
        help=r"a regular expression that makes the model's names of theirs: '^net\.='; repeatable",
    )
    convert.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="PART",
        help="let a part begin anew: averages, batches, optimizer, schedules, updates; repeatable",
    )


def _copy(commands: _Commands) -> None:
    copy = commands.add(
        "copy",
        "copy files between stores",
        "Copy a file, or make the files below one directory equal to those below another: only what changed is copied.\n"
        "Both may be local paths or URIs: s3://…, gs://…, az://…, https://…, hf://…",
    )
    copy.add_argument("source", help="a file or a directory")
    copy.add_argument("target", help="where it goes")
    copy.add_argument("--delete", action="store_true", help="remove from a directory what the source does not have")
    copy.add_argument("--jobs", type=int, default=8, metavar="N", help="files of a directory at once (default: 8)")


def _launch(commands: _Commands) -> None:
    launch = commands.add(
        "launch",
        "run a command on several processes",
        "Run a command on several processes, of one machine or of many, with torchrun's agent.\n\n"
        "What is launched: a command of treenail (train config.yaml …), a script (script.py …) or, behind --,\n"
        "-m module …. If a rank fails, the others are ended and its error is shown; SIGTERM and Ctrl-C go to all ranks.",
    )
    launch.add_argument("--nproc", metavar="N", help="processes of this machine: a number, gpu or auto (default: auto)")
    launch.add_argument("--nnodes", metavar="N", help="machines: a number, or MIN:MAX (default: 1)")
    launch.add_argument("--node-rank", type=int, metavar="R", help="this machine's number, from 0")
    launch.add_argument("--master-addr", metavar="A", help="machine 0, as the others reach it")
    launch.add_argument(
        "--master-port", type=int, metavar="P", help="a port there (default on one machine: a free one)"
    )
    launch.add_argument(
        "--rdzv-endpoint", metavar="A:P", help="a meeting place instead, for machines without numbers, and MIN:MAX"
    )
    launch.add_argument("--rdzv-id", metavar="ID", help="names the run there; the same on all machines")
    launch.add_argument(
        "--max-restarts", type=int, metavar="K", help="start all again K times after one failed (default: 0)"
    )
    launch.add_argument("--grace", type=float, metavar="S", help="seconds to stop in after a signal (default: 300)")
    launch.add_argument(
        "--launcher",
        choices=["pytorch", "spawn", "slurm", "mpi", "none"],
        default="pytorch",
        help="slurm, mpi: srun or mpirun started this process, which becomes a rank; none: it is on its own "
        "(default: pytorch, which starts the ranks)",
    )
    launch.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, with its arguments")


def _logs(commands: _Commands) -> None:
    logs = commands.add(
        "logs",
        "show how a run is doing",
        "Show how far a run is and how long it still takes, its curves, and the last lines of its log. It may be under way.",
    )
    logs.add_argument("work_dir", type=_local_directory, metavar="WORK_DIR", help="work_dirs/CONFIG/001, for instance")
    logs.add_argument("--lines", type=int, default=10, metavar="N", help="lines of the log (default: 10)")
    logs.add_argument("--rank", type=int, default=0, metavar="R", help="whose log (default: 0)")
    logs.add_argument(
        "--curve", dest="curves", action="append", default=[], metavar="NAME", help="draw a curve: val/loss; repeatable"
    )
    logs.add_argument("--all", action="store_true", help="list all curves, those of single parameters too")
    compare = commands.add(
        "compare",
        "show runs side by side",
        "Show runs side by side: where their configs differ, how far they are, their last and best metrics.",
    )
    compare.add_argument(
        "work_dir", type=_local_directory, nargs="+", metavar="WORK_DIR", help="work_dirs/CONFIG/001 and others"
    )


def _completion(commands: _Commands, whole: argparse.ArgumentParser) -> None:
    completion = commands.add(
        "completion",
        "print a shell's completion script",
        'Print a completion script: eval "$(treenail completion bash)" in ~/.bashrc.',
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    complete = commands.parsers.add_parser("complete")  # asked by the scripts; without help=, the help does not list it
    complete.add_argument("words", nargs="*")
    complete.add_argument("--line")
    complete.set_defaults(parser=whole, debug=False)
