"""The fenced code blocks of a page, and the workplace in which they run.

The blocks of a page run in order, in a fresh directory that holds a copy of `configs/` and the command `scripts/treenail`.
The info string says what a block is; any other one is a mistake:

| info string             | what happens                                                                                  |
| ----------------------- | --------------------------------------------------------------------------------------------- |
| `python`                | runs; all such blocks of a page share one namespace                                             |
| `python title="x.py"`   | is written to that file                                                                         |
| `console`               | `$ ` begins a command, which bash runs; what follows is its output. The exit code must be 0,    |
|                         | or what a line `# exit code N` says. `^C` on a line of its own interrupts, as Ctrl-C does,      |
|                         | once the output above it has appeared.                                                          |
| `yaml title="x.yaml"`   | is written to that file; a whole run is checked: it must be right, or wrong if the file is      |
|                         | called `wrong…`                                                                                 |
| `yaml`                  | an excerpt: laid over configs/digits.yaml, key by key of the top level, the result must be right |
| `toml title="x.toml"`   | is written to that file                                                                         |
| `text`                  | output: right after a `python` block it is what that block prints; elsewhere an illustration    |
| `sh`                    | commands for a reader that need a network or a checkout: shown, not run. An extra that they     |
|                         | install must exist; `pip install -e .` makes the entry points of pyproject.toml known           |

Shown output must be the real one, but for this: `…` stands for anything within a line, and on a line of its own for any
number of lines; a number with a decimal point stands for any number (times and losses differ from machine to machine),
a timestamp for any timestamp. A command under which nothing is shown may print anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple, Self

from ruamel.yaml import YAML

from treenail.adapters.config import load_run
from treenail.kernel import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # after which a command is taken for stuck

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")
_INFO = re.compile(r'^(?P<kind>\w+)(?: title="(?P<title>[\w./-]+)")?$')
_TITLED = {"python", "yaml", "toml"}
_UNTITLED = {"python", "yaml", "console", "text", "sh"}
_TIMESTAMP = r"(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|\b\d\d:\d\d:\d\d\b)"
_TOKEN = re.compile(rf"(?P<anything>…)|(?P<time>{_TIMESTAMP})|(?P<number>\d+\.\d+(?:e[+-]?\d+)?)")
_NUMBER = r"(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf)"


class Block(NamedTuple):
    """A fenced block: its kind and file name, its lines, and the number of the line after its fence."""

    kind: str
    title: str | None
    lines: list[str]
    line: int
    follows: bool  # nothing but blank lines lies between the block before and this one

    @property
    def body(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines) + "\n"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page.

    Raises:
        AssertionError: An info string is unknown, or a fence is not closed.
    """
    found: list[Block] = []
    inside: tuple[str, re.Match[str], int] | None = None
    held: list[str] = []
    adjacent = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if inside is None and fence is not None:
            info = _INFO.match(fence["info"].strip())
            assert info is not None, f"{page}:{number}: a block needs a known info string, not '{fence['info']}'"
            allowed = _TITLED if info["title"] else _UNTITLED
            assert info["kind"] in allowed, f"{page}:{number}: unknown info string '{fence['info']}'"
            inside, held = (fence["indent"] + fence["ticks"], info, number + 1), []
        elif inside is not None and line.rstrip() == inside[0]:
            found.append(Block(inside[1]["kind"], inside[1]["title"], held, inside[2], adjacent))
            inside, adjacent = None, True
        elif inside is not None:
            held.append(line.removeprefix(" " * (len(inside[0]) - len(inside[0].lstrip()))))
        elif line.strip():
            adjacent = False
    assert inside is None, f"{page}:{inside[2] - 1}: the block is not closed"
    return found


def pattern(shown: list[str]) -> re.Pattern[str]:
    """Return what matches the output that lines show."""
    parts = [r"(?:.*\n)*?" if line.strip() == "…" else _line_pattern(line.rstrip()) + r"[ \t]*\n" for line in shown]
    return re.compile("".join(parts))


def _line_pattern(line: str) -> str:
    text, position = "", 0
    for token in _TOKEN.finditer(line):
        text += re.escape(line[position : token.start()])
        text += ".*?" if token["anything"] else _TIMESTAMP if token["time"] else _NUMBER
        position = token.end()
    return text + re.escape(line[position:])


def compare(shown: list[str], printed: str, where: str) -> None:
    """Compare what a page shows with what was printed."""
    while shown and not shown[-1].strip():
        shown = shown[:-1]
    if printed and not printed.endswith("\n"):
        printed += "\n"
    if shown and not pattern(shown).fullmatch(printed):
        text = "\n".join(shown)
        raise AssertionError(f"{where}: the page shows\n{text}\n--- but this is printed ---\n{printed}")


class Command(NamedTuple):
    """A command of a console block: what is run, what it prints and how it ends."""

    text: str
    shown: list[str]
    exit_code: int
    line: int


def commands(block: Block) -> list[Command]:
    """Split a console block into its commands."""
    found: list[Command] = []
    continued = False
    for number, line in enumerate(block.lines, start=block.line):
        if continued:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line}")
        elif line.startswith("$ "):
            found.append(Command(line[2:], [], 0, number))
        elif code := re.fullmatch(r"# exit code (\d+)", line):
            found[-1] = found[-1]._replace(exit_code=int(code[1]))
        else:
            assert found, f"line {number}: output before the first command"
            found[-1].shown.append(line)
        continued = line.endswith("\\") and (continued or line.startswith("$ "))
    return found


class Workplace:
    """A directory, an environment and a namespace in which the blocks of one page run.

    Args:
        directory: Empty; the process changes into it while the workplace is entered.
        page: The page, for messages.
        scripts: Where commands are looked for first.
    """

    def __init__(self, directory: Path, page: Path, scripts: Path | None = None) -> None:
        self.directory = directory
        self._scripts = [] if scripts is None else [str(scripts)]
        self.page = page.relative_to(ROOT)
        self.counts: dict[str, int] = {}
        self._module = ModuleType("page")
        self._printed = ""
        self._installed: list[str] = []
        self._before: tuple[Path, list[str], set[str]] | None = None

    def __enter__(self) -> Self:
        shutil.copytree(ROOT / "configs", self.directory / "configs", ignore=shutil.ignore_patterns("__pycache__"))
        script = self.directory / "scripts" / "treenail"
        script.parent.mkdir()
        script.write_text('#!/bin/sh\nexec treenail "$@"\n')
        script.chmod(0o755)
        self._before = Path.cwd(), list(sys.path), set(sys.modules)
        os.chdir(self.directory)
        sys.path.insert(0, str(self.directory))
        sys.modules["page"] = self._module
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._before is not None
        directory, path, modules = self._before
        os.chdir(directory)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if name == "page" or origin.startswith(str(self.directory)):
                del sys.modules[name]

    def run(self, block: Block) -> None:
        """Do with a block what its info string says."""
        self.counts[block.kind] = self.counts.get(block.kind, 0) + 1
        if block.title is not None:
            target = self.directory / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.body, encoding="utf-8")
        where = f"{self.page}:{block.line}"
        if block.kind == "python" and block.title is None:
            self._run_python(block)
        elif block.kind == "python":
            compile(block.body, str(block.title), "exec")
        elif block.kind == "yaml":
            self._check_config(block, where)
        elif block.kind == "toml":
            tomllib.loads(block.body)
        elif block.kind == "sh":
            self._look_at_shell(block, where)
        elif block.kind == "text" and block.follows and self._printed:
            compare(block.lines, self._printed, where)
        elif block.kind == "console":
            for command in commands(block):
                self._run_command(command)
        if block.kind != "python":
            self._printed = ""

    def _run_python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.body, str(ROOT / self.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            exec(code, vars(self._module))
        self._printed = printed.getvalue()

    def _check_config(self, block: Block, where: str) -> None:
        yaml = YAML(typ="safe", pure=True)
        data = yaml.load(block.body)
        assert isinstance(data, dict), f"{where}: not a mapping"
        if block.title is None:
            excerpt = self.directory / "excerpt.yaml"
            whole = yaml.load((self.directory / "configs" / "digits.yaml").read_text())
            with excerpt.open("w") as file:
                YAML().dump(whole | data, file)
            load_run(excerpt)
            excerpt.unlink()
        elif "model" in data:
            mistakes = ""
            try:
                load_run(block.title)
            except ConfigError as error:
                mistakes = str(error)
            wrong = Path(block.title).name.startswith("wrong")
            assert wrong == bool(mistakes), f"{where}: {mistakes or 'nothing is wrong here'}"

    def _look_at_shell(self, block: Block, where: str) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for written in re.findall(r"\[([\w,]+)\]", block.body):
            unknown = set(written.split(",")) - set(project["optional-dependencies"])
            assert not unknown, f"{where}: treenail has no extra {unknown}"
        for script in re.findall(r"scripts/\w+", block.body):
            assert (ROOT / script).is_file(), f"{where}: there is no {script}"
        own = self.directory / "pyproject.toml"
        if "pip install -e ." in block.body and own.exists():
            site = self.directory / "site-packages"
            _install(tomllib.loads(own.read_text())["project"], site)
            self._installed = [str(site), str(self.directory)]
            sys.path.insert(0, str(site))

    def _run_command(self, command: Command) -> None:
        where = f"{self.page}:{command.line}"
        interrupt = command.shown.index("^C") if "^C" in command.shown else None
        before = pattern(command.shown[:interrupt]) if interrupt is not None else None
        process = subprocess.Popen(
            ["bash", "-c", command.text],
            cwd=self.directory,
            env=environment(self._scripts, self._installed),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that an interrupt reaches the command's processes and no other
        )
        stuck = threading.Timer(SECONDS, lambda: os.killpg(process.pid, signal.SIGKILL))
        stuck.start()
        printed = ""
        try:
            assert process.stdout is not None
            for line in process.stdout:
                printed += line
                if before is not None and before.fullmatch(printed):
                    os.killpg(process.pid, signal.SIGINT)
                    before = None
            code = process.wait()
        finally:
            stuck.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        code = 128 - code if code < 0 else code
        assert code == command.exit_code, f"{where}: `{command.text}` ended with exit code {code}\n{printed}"
        compare([line for line in command.shown if line != "^C"], printed, where)


def environment(scripts: Sequence[str] = (), installed: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment variables of commands.

    Args:
        scripts: Directories in which commands are looked for, before that of this Python.
        installed: Directories from which Python imports.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return own | {
        "PATH": os.pathsep.join([*scripts, sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(installed),
        "PYTHONUNBUFFERED": "1",  # a terminal's order of output and errors, through a pipe
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }


def _install(project: dict[str, object], site: Path) -> None:
    """Make a project's entry points known to Python, as an editable installation does."""
    name = str(project["name"]).replace("-", "_")
    directory = site / f"{name}-{project['version']}.dist-info"
    directory.mkdir(parents=True)
    (directory / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"]
    assert isinstance(groups, dict)
    lines: list[str] = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (directory / "entry_points.txt").write_text("\n".join(lines) + "\n")


def pages() -> Iterator[Path]:
    """Yield the README and the pages of the site."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs" / "pages").rglob("*.md"))
