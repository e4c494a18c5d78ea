"""Completion, as people meet it: a line is typed into a real shell, Tab is pressed, and the line is looked at."""

import fcntl
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from treenail.adapters.cli.completion import SCRIPTS, Completion
from treenail.adapters.cli.parser import parser

ROOT = Path(__file__).parents[2]
TRAIN = "treenail train configs/digits.yaml "
SECONDS = 60


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with configs and the command, and a warm cache; the process is in it."""
    folder = tmp_path_factory.mktemp("completion")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "bin").mkdir()
    command = folder / "bin" / "treenail"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m treenail.adapters.cli "$@"\n')
    command.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("TERM", "dumb")
        subprocess.run(["treenail", "complete", "--", "train", "configs/digits.yaml", "op"], check=True)
        yield folder


def completed(*words: str) -> list[str]:
    """Return what the last of some words can become."""
    return Completion(parser()).of(words)


def overrides(word: str, config: str = "configs/digits.yaml") -> list[str]:
    return completed("train", config, word)


pytestmark = pytest.mark.usefixtures("workplace")


def test_commands_and_options() -> None:
    assert {"train", "check", "template", "completion"} <= set(completed(""))
    assert "complete" not in completed("")
    assert completed("tra") == ["train"]
    assert completed("--v") == ["--version"]
    assert completed("train", "--work") == ["--work-dir"]
    assert completed("completion", "") == ["bash", "fish", "zsh"]
    assert completed("nonsense", "") == []


def test_configs_and_directories() -> None:
    assert completed("train", "configs/d") == ["configs/deploy/", "configs/digits.py", "configs/digits.yaml"]
    assert "configs/" in completed("train", "con")
    assert completed("check", "configs/digits.yaml", "configs/digits.p") == ["configs/digits.py"]
    assert completed("train", "configs/digits.yaml", "--work-dir", "con")[-1] == "configs/"
    assert completed("train", "configs/digits.yaml", "--work-dir=configs/dep") == ["--work-dir=configs/deploy/"]


def test_keys_follow_the_schema_along_the_config_s_own_tree() -> None:
    assert {"optimizer.lr=", "optimizer.betas=", "optimizer.type="} <= set(overrides("optimizer."))
    assert "optimizer.params=" not in overrides("optimizer.")
    assert overrides("model.args.3.padding") == ["model.args.3.padding=", "model.args.3.padding_mode="]
    assert overrides("model.args.2.") == ["model.args.2.inplace=", "model.args.2.type="]
    assert overrides("opt") == ["optimizer."]
    assert overrides("val") == ["val.", "val="]
    assert overrides("se") == ["seed="]
    assert overrides("schedules.0.scheduler.T") == ["schedules.0.scheduler.T_max="]
    assert overrides("model.args.1") == ["model.args.1."]
    assert overrides("nonsense.") == []


def test_an_item_of_a_list_is_followed_by_its_name_too() -> None:
    assert overrides("model.args.Dr") == ["model.args.Dropout."]
    assert overrides("model.args.Dropout.p") == ["model.args.Dropout.p="]
    assert overrides("model.args.Conv") == []  # there are two


def test_values_that_can_be_counted() -> None:
    assert overrides("schedules.0.every=") == [
        "schedules.0.every=epoch",
        "schedules.0.every=null",
        "schedules.0.every=step",
    ]
    assert overrides("train.drop_last=t") == ["train.drop_last=true"]
    assert overrides("optimizer.type=Adam") == ["optimizer.type=Adam", "optimizer.type=AdamW", "optimizer.type=Adamax"]
    assert overrides("train.sampler.type=seq") == ["train.sampler.type=sequential"]
    assert overrides("optimizer.foreach=") == [
        "optimizer.foreach=false",
        "optimizer.foreach=null",
        "optimizer.foreach=true",
    ]
    assert overrides("optimizer.lr=") == []


def test_plus_completes_new_keys_and_tilde_those_that_are_there() -> None:
    assert "+optimizer.betas=" in overrides("+optimizer.")
    assert "+optimizer.lr=" not in overrides("+optimizer.")
    assert overrides("~optimizer.") == ["~optimizer.lr", "~optimizer.type", "~optimizer.weight_decay"]
    assert "~hooks.timer" in overrides("~hooks.")  # a run has it without being asked
    assert overrides("~seed") == ["~seed"]
    assert overrides("~threads=") == []


def test_an_earlier_override_counts() -> None:
    words = ["train", "configs/digits.yaml", "optimizer={type: SGD, lr: 0.1}", "optimizer."]
    assert "optimizer.momentum=" in completed(*words)
    assert "optimizer.betas=" not in completed(*words)


def test_the_overrides_of_check_and_its_overlays(workplace: Path) -> None:
    overlay = workplace / "configs" / "deploy" / "sgd.yaml"
    overlay.write_text("optimizer: {_delete_: true, type: SGD, lr: 0.1}\n")
    assert completed("check", "configs/digits.yaml", "--with", "configs/deploy/sg") == ["configs/deploy/sgd.yaml"]
    words = ["check", "configs/digits.yaml", "--with", "configs/deploy/sgd.yaml", "--set"]
    assert completed(*words, "optimizer.mom") == ["optimizer.momentum="]
    overlay.unlink()


def test_a_base_s_keys_are_completed(workplace: Path) -> None:
    (workplace / "derived.yaml").write_text("_base_: configs/digits.yaml\nseed: 3\n")
    assert overrides("optimizer.we", "derived.yaml") == ["optimizer.weight_decay="]


def test_a_wrong_config_is_completed_by_the_schema_alone(workplace: Path) -> None:
    (workplace / "wrong.yaml").write_text("model: {type: [\n")
    assert overrides("train.batch_si", "wrong.yaml") == ["train.batch_size="]
    assert overrides("train.batch_si", "absent.yaml") == ["train.batch_size="]


def test_completion_runs_no_code_of_a_config(workplace: Path) -> None:
    (workplace / "config.py").write_text("open('ran', 'w').close()\n")
    assert overrides("train.batch_si", "config.py") == ["train.batch_size="]
    (workplace / "parts.py").write_text("open('ran', 'w').close()\n")
    (workplace / "own.yaml").write_text("imports: [parts]\nmodel: {type: parts:Model}\n")
    assert overrides("model.", "own.yaml") == ["model.type="]
    assert not (workplace / "ran").exists()


def test_components_and_exporters_are_completed() -> None:
    assert completed("template", "run") == ["run"]
    assert completed("template", "AdamW") == ["AdamW"]
    assert completed("schema", "--component", "Conv2") == ["Conv2d"]
    assert completed("export", "configs/digits.yaml", "--format", "on") == ["onnx"]


def test_a_warm_answer_costs_little_more_than_starting_and_imports_no_torch() -> None:
    start = "import treenail.adapters.config, treenail.adapters.cli"
    call = "import sys; from treenail.adapters.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = ["complete", "--", "train", "configs/digits.yaml", "model.args.3."]
    starting = min(processor_time([sys.executable, "-c", start]) for _ in range(5))
    answering = min(processor_time([sys.executable, "-c", call, *words]) for _ in range(5))
    assert answering < starting + 0.15


def processor_time(command: Sequence[str]) -> float:
    """Return the seconds of processor that a command took, which depend less on what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    "line", ["", "treenail", "treenail 'train", 'treenail train "', "treenail train \\", "treenail é '"]
)
def test_an_unfinished_line_is_answered_without_an_error(line: str) -> None:
    answer = subprocess.run(["treenail", "complete", "--line", line], capture_output=True, text=True, check=False)
    assert answer.stderr == ""


def test_nothing_is_printed_about_what_is_wrong() -> None:
    words = ["train", "absent/absent.yaml", "--checkpoint", "x", "a.b.c.d=", "--with", "nowhere/"]
    for length in range(1, len(words) + 1):
        answer = subprocess.run(
            ["treenail", "complete", "--", *words[:length]], capture_output=True, text=True, check=False
        )
        assert answer.stderr == ""


class Terminal:
    """A shell at a terminal, to type into.

    Args:
        command: Starts the shell.
        setup: What to type first.
    """

    def __init__(self, command: list[str], setup: Sequence[str]) -> None:
        self._process, self._terminal = pty.fork()
        if self._process == 0:
            os.execvp(command[0], command)
        size = struct.pack("HHHH", 50, 500, 0, 0)  # so wide that no line is broken
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
        self.seen = ""
        for number, line in enumerate(setup):
            self.type(f"{line}; echo done $(({number} + 1000))\r")
            self.wait_for(f"done {number + 1000}")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str) -> str:
        """Return what was printed up to a text."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            if time.monotonic() > deadline or not select.select([self._terminal], [], [], SECONDS)[0]:
                raise TimeoutError(f"no {text!r} in {self.seen[-2000:]!r}")
            self.seen += os.read(self._terminal, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def tab(self, line: str) -> list[str]:
        """Type a line and press Tab; return the words that the shell then has."""
        self.type(f"{line}\t")
        self.type("\x01printf '<%s>' ")  # Ctrl-A: to the beginning of the line
        self.type("\r")
        self.type("echo end $((700 + 77))\r")
        shown = self.wait_for("end 777")
        return re.findall(r"<([^<>%]*)>", shown.replace("\r", "").replace("\n", ""))

    def close(self) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._terminal)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ['eval "$(treenail completion bash)"']),
    "zsh": (
        ["zsh", "-f", "-i"],
        ["unsetopt zle_bracketed_paste; autoload -U compinit", "compinit -D -u", 'eval "$(treenail completion zsh)"'],
    ),
}


@pytest.fixture(scope="module", params=SHELLS)
def terminal(request: pytest.FixtureRequest, workplace: Path) -> Iterator[Terminal]:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed here, so its script is not tried")
    shell = Terminal(*SHELLS[request.param])
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("treenail templ", ["treenail", "template"]),
        ("treenail train configs/digits.y", ["treenail", "train", "configs/digits.yaml"]),
        (f"{TRAIN}optimizer.weight", [*TRAIN.split(), "optimizer.weight_decay="]),
        (f"{TRAIN}opt", [*TRAIN.split(), "optimizer."]),
        (f"{TRAIN}schedules.0.every=s", [*TRAIN.split(), "schedules.0.every=step"]),
        (f"{TRAIN}train.sampler.type=treenail:seq", [*TRAIN.split(), "train.sampler.type=treenail:sequential"]),
        (f"{TRAIN}model.args.3.stri", [*TRAIN.split(), "model.args.3.stride="]),
        (f"{TRAIN}+optimizer.be", [*TRAIN.split(), "+optimizer.betas="]),
        (f"{TRAIN}--work", [*TRAIN.split(), "--work-dir"]),
        (f"{TRAIN}nonsense", [*TRAIN.split(), "nonsense"]),
    ],
)
def test_tab_in_a_real_shell(terminal: Terminal, line: str, words: list[str]) -> None:
    assert terminal.tab(line) == words


@pytest.mark.parametrize(
    "word", ["optimizer.", "model.args.3.p", "optimizer.type=Ada", "~opt", "nonsense", "train.drop_last="]
)
def test_fish_offers_what_the_command_answers(word: str) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed here, so its script is not tried")
    script = f'treenail completion fish | source; complete -C "{TRAIN}{word}"'
    offered = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    assert offered.stderr == ""
    assert sorted(offered.stdout.split()) == overrides(word)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_script_is_right_for_its_shell(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed here, so its script is not parsed")
    printed = subprocess.run(["treenail", "completion", shell], capture_output=True, text=True, check=True).stdout
    assert printed == SCRIPTS[shell]
    parsed = subprocess.run([shell, "-n", "/dev/stdin"], input=printed, capture_output=True, text=True, check=False)
    assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed here")
def test_the_script_for_bash_is_clean() -> None:
    subprocess.run(["shellcheck", "--shell=bash", "-"], input=SCRIPTS["bash"], text=True, check=True)
