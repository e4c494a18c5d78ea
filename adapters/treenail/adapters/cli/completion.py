"""Completion in bash, zsh and fish: the scripts, and the hidden command that they ask. It needs no torch.

The scripts hold no knowledge of the commands. They pass the words before the cursor to ``treenail complete`` and offer the
lines that it prints: whole words; after one that ends in ``=``, ``.`` or ``/`` there is more to type, so no space follows.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from treenail.adapters.config.cache import load_stored
from treenail.adapters.config.candidates import Candidates, names_for
from treenail.adapters.config.complete import complete_override
from treenail.adapters.config.imports import allowed_imports
from treenail.adapters.config.load import Source, read_source
from treenail.adapters.config.template import RUN_NAME
from treenail.kernel import TreenailError

BASH: Final = r"""# treenail: completion for bash. Put this into ~/.bashrc: eval "$(treenail completion bash)"
_treenail() {
    local line="${COMP_LINE:0:COMP_POINT}" word prefix each break
    local -a found
    mapfile -t found < <("${COMP_WORDS[0]}" complete --line "$line" 2>/dev/null)
    # bash replaces only what follows the last of its word breaks, so the part before it must not be repeated.
    word="${line##*[[:space:]]}"
    prefix=""
    for break in "=" ":"; do
        if [[ $COMP_WORDBREAKS == *"$break"* && $word == *"$break"* ]]; then
            each="${word%"$break"*}$break"
            ((${#each} > ${#prefix})) && prefix="$each"
        fi
    done
    COMPREPLY=("${found[@]#"$prefix"}")
    [[ ${#found[@]} -gt 0 && ${found[0]} == *[=./] ]] && compopt -o nospace
    return 0
}
complete -F _treenail treenail
"""

ZSH: Final = r"""#compdef treenail
# treenail: completion for zsh. Put this into ~/.zshrc, below compinit: eval "$(treenail completion zsh)"
_treenail() {
    local -a before found open closed
    local each
    before=("${(@Q)words[2,CURRENT-1]}")
    found=("${(@f)$(${(Q)words[1]} complete -- "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}")
    for each in "${found[@]}"; do
        [[ -z $each ]] && continue
        if [[ $each == *[=./] ]]; then open+=("$each"); else closed+=("$each"); fi
    done
    (( $#open )) && compadd -S '' -a open
    (( $#closed )) && compadd -a closed
    return 0
}
(( $+functions[compdef] )) && compdef _treenail treenail
"""

FISH: Final = r"""# treenail: completion for fish. Put this into ~/.config/fish/completions/treenail.fish
function __treenail_complete
    set -l before (commandline -opc)
    $before[1] complete -- $before[2..-1] (commandline -ct) 2>/dev/null
end
complete -c treenail -f -a '(__treenail_complete)'
"""

SCRIPTS: Final = MappingProxyType({"bash": BASH, "zsh": ZSH, "fish": FISH})

_CONFIGS: Final = (".yaml", ".yml", ".json", ".toml", ".py")
_Parser = argparse.ArgumentParser


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    sys.stdout.write(SCRIPTS[options.shell])
    return 0


def complete(options: argparse.Namespace) -> int:
    """Print what the last of some words can become, each on a line; never an error, which would stand in the prompt."""
    words = _words(options.line) if options.line is not None else list(options.words)
    try:
        for found in Completion(options.parser).of(words or [""]):
            print(found)
    except (TreenailError, OSError, ValueError, LookupError):
        return 1  # whoever runs the command sees what is wrong; in the middle of typing there is no place to say it
    return 0


class Completion:
    """Completes the words of a command line.

    Args:
        parser: The parser of the command, with its subcommands.
    """

    def __init__(self, parser: _Parser) -> None:
        self._parser = parser

    def of(self, words: Sequence[str]) -> list[str]:
        """Return what the last word can become.

        Args:
            words: Those after the program's name; the last one, which may be empty, is completed.
        """
        *before, word = words
        commands = _commands(self._parser)
        name = next((each for each in before if not each.startswith("-")), None)
        if name is None:
            return sorted(each for each in [*_shown(self._parser), *_options(self._parser)] if _begins(each, word))
        if name not in commands:
            return []
        return sorted(dict.fromkeys(self._of_command(commands[name], before[before.index(name) + 1 :], word)))

    def _of_command(self, parser: _Parser, before: list[str], word: str) -> Iterator[str]:
        option, equals, value = word.partition("=")
        if word.startswith("--") and equals:
            action = _action(parser, option)
            yield from (f"{option}={each}" for each in self._values(action, parser, before, value) if action)
            return
        last = _action(parser, before[-1]) if before else None
        if last is not None and last.nargs != 0:
            yield from self._values(last, parser, before[:-1], word)
        elif word.startswith("-"):
            yield from (each for each in _options(parser) if each.startswith(word))
        else:
            yield from self._values(_positional(parser, _positionals(parser, before)), parser, before, word)

    def _values(self, action: argparse.Action | None, parser: _Parser, before: list[str], word: str) -> Iterator[str]:
        if action is None:
            return
        of_dest: dict[str, Callable[[], Iterator[str]]] = {
            "config": lambda: _files(word, _CONFIGS),
            "configs": lambda: _files(word, _CONFIGS),
            "overlays": lambda: _files(word, _CONFIGS),
            "work_dir": lambda: _files(word),
            "overrides": lambda: self._overrides(parser, before, word),
            "name": lambda: iter([each for each in [RUN_NAME, *_components()] if each.startswith(word)]),
            "component": lambda: (each for each in _components() if each.startswith(word)),
            "format": lambda: (each for each in Candidates(names_for()).of_port("exporter") if each.startswith(word)),
        }
        if action.choices is not None:
            yield from (str(each) for each in action.choices if str(each).startswith(word))
        elif action.dest in of_dest:
            yield from of_dest[action.dest]()
        elif action.type is Path:
            yield from _files(word)

    def _overrides(self, parser: _Parser, before: list[str], word: str) -> Iterator[str]:
        positionals = _positionals(parser, before)
        config = next((Path(each) for each in positionals if each.endswith(_CONFIGS)), None)
        if config is None:
            return
        earlier = [each for each in positionals if "=" in each or each.startswith("~")]
        imports: tuple[str, ...] = tuple(_values_of(parser, before, "imports"))
        overlays = [Path(each) for each in _values_of(parser, before, "overlays")]
        earlier += _values_of(parser, before, "overrides")
        data = _read(config, earlier, overlays)
        imports = (*imports, *allowed_imports(data))
        stored = load_stored((Path.cwd(), config.absolute().parent)) if imports else None
        candidates = Candidates(stored or names_for())
        yield from complete_override(candidates, data, word, imports)


def _read(config: Path, overrides: list[str], overlays: list[Path]) -> object:
    """Return a config as plain data; an empty one where it is wrong, or Python, which completion must not run."""
    if config.suffix == ".py":
        return {}
    for tried in (overrides, []):
        try:
            return read_source(Source(config, tried, overlays))[0].data
        except TreenailError:
            continue
    return {}


def _components() -> list[str]:
    candidates = Candidates(names_for())
    return sorted(
        {name for port in candidates.names.registries for name in candidates.of_port(port) if ":" not in name}
    )


def _files(word: str, suffixes: Sequence[str] = ()) -> Iterator[str]:
    folder, name = os.path.split(word)
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            hidden = entry.name.startswith(".") and not name.startswith(".")
            if not entry.name.startswith(name) or hidden:
                continue
            path = os.path.join(folder, entry.name)
            if entry.is_dir():
                yield f"{path}/"
            elif not suffixes or entry.name.endswith(tuple(suffixes)):
                yield path


def _words(line: str) -> list[str]:
    """Return the words of a line up to the cursor, without the program's name; a quote may still be open."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(f"{line}{closing}")
        except ValueError:
            continue
        return words[1:] if line[-1:].strip() or closing else [*words[1:], ""]
    return []


def _begins(candidate: str, word: str) -> bool:
    return candidate.startswith(word) and (word.startswith("-") or not candidate.startswith("-"))


# argparse has no public way to ask a parser what it takes; `_actions` has been its list of arguments since Python 2.7.


def _commands(parser: _Parser) -> dict[str, _Parser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _shown(parser: _Parser) -> list[str]:
    """Return the names of the commands that the help lists."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [each.dest for each in action._get_subactions()]
    return []


def _options(parser: _Parser) -> list[str]:
    return [text for action in parser._actions for text in action.option_strings if text.startswith("--")]


def _action(parser: _Parser, option: str) -> argparse.Action | None:
    return next((action for action in parser._actions if option in action.option_strings), None)


def _positionals(parser: _Parser, before: Sequence[str]) -> list[str]:
    """Return the words that are no option and no option's value."""
    found: list[str] = []
    takes_value = False
    for word in before:
        action = _action(parser, word)
        if not takes_value and action is None and not word.startswith("-"):
            found.append(word)
        takes_value = action is not None and action.nargs != 0
    return found


def _values_of(parser: _Parser, before: Sequence[str], dest: str) -> list[str]:
    """Return the values given to an option so far."""
    pairs = itertools.pairwise(before)
    return [value for option, value in pairs if (action := _action(parser, option)) is not None and action.dest == dest]


def _positional(parser: _Parser, given: Sequence[str]) -> argparse.Action | None:
    """Return the positional argument that comes next."""
    actions = [action for action in parser._actions if not action.option_strings]
    for action in actions:
        if action.nargs in ("*", "+"):
            return action
        if not given:
            return action
        given = given[1:]
    return None


__all__ = ["SCRIPTS", "Completion", "complete", "completion"]
