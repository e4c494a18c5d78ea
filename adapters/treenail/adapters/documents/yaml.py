"""YAML 1.2 as plain data that knows where each part was written. Reading it runs no code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import Event

from treenail.adapters.documents.compose import Composer
from treenail.adapters.documents.document import Document, InvalidConfigError, Mistake
from treenail.adapters.documents.limits import checked_source
from treenail.adapters.documents.lines import Lines
from treenail.adapters.documents.scalars import resolve, resolve_tuple

# What libyaml and ruamel.yaml's own parser do not read alike, or that only one of them takes. Such a text is given to
# ruamel.yaml's, so that what a config means never depends on which of them is installed. Each part takes linear time.
_ODD = re.compile(
    r"""
      (?:^|[\x20\[{,:-])[?!]                              # a `?` that begins a key, a tag
    | ^%                                                  # a directive
    | (?:^|[\x20\[{,:-])[*&](?![\w-]++(?:[\x20\n,\]}]|\Z)) # a name of an anchor that goes on after letters and digits
    | ^[\x20]*[|>] | ^(?:---|&|[*])[^\n]*[|>]             # a block scalar that is the whole document
    | [|>][-+0-9]*+[\x20]*+(?:\#|\n++[\x20]++\n)          # one with a comment, or that begins with lines of blanks
    | ^[\x20]*\.\.\.                                      # an end of a document
    """,
    re.MULTILINE | re.VERBOSE | re.ASCII,
)

_DIRECTIVE = re.compile(r"^%(?:YAML(?!\x20+1\.2\x20*(?:\x20\#[^\n]*)?$)|TAG)", re.MULTILINE)


def parse_yaml(text: str, source: str, *, tuples: bool = False) -> Document:
    """Parse one YAML 1.2 document.

    Aliases become copies of what they name, with the places where that was written. libyaml does the scanning where the
    package ruamel.yaml.clib is there and the text has none of the rarer syntax; the result is the same without it.

    Args:
        text: The document.
        source: Name of the file, for places.
        tuples: Whether a plain scalar like ``(224, 224)`` is a tuple rather than text.

    Raises:
        InvalidConfigError: The syntax is wrong, a key occurs twice, there is a tag, which could name code, or a limit is
            passed; holds all mistakes up to where reading could not go on.
        ConfigError: The document is empty.
    """
    text = checked_source(text, source)
    resolver = resolve_tuple if tuples else resolve
    next_event = None if _is_odd(text) else _libyaml_events(text)
    if next_event is not None:
        try:
            found = Composer(next_event, source, resolver).document()
            found.may_refer = any(sign in text for sign in ("${", "{{", "\\"))  # an escape can write a brace
            return found
        except YAMLError:
            pass  # ruamel.yaml's parser decides, and finds the words
    return _read_in_python(text, source, resolver)


def parse_value(text: str, source: str) -> Document:
    """Parse a YAML value on the command line: ``3e-4``, ``[1, 2]``, ``{type: adamw}``; an empty text is the empty string.

    Raises:
        InvalidConfigError: The syntax is wrong.
    """
    return parse_yaml(text, source) if text.strip() else Document(source, "")


def _is_odd(text: str) -> bool:
    if any(sign in text for sign in ("\t", "\x85", "\u2028", "\u2029")):
        return True
    signs = any(sign in text for sign in ("?", "!", "%", "*", "&", "|", ">", "..."))  # the pattern itself takes longer
    return signs and _ODD.search(text) is not None


def _libyaml_events(text: str) -> Callable[[], Event] | None:
    try:
        from _ruamel_yaml import CParser
    except ImportError:  # ruamel.yaml.clib is optional for ruamel.yaml too: there is no wheel for every platform
        return None
    next_event: Callable[[], Event] = CParser(text).get_event
    return next_event


def _read_in_python(text: str, source: str, resolver: Callable[[str], object]) -> Document:
    directive = _DIRECTIVE.search(text)
    if directive is not None:  # ruamel.yaml would read by the rules of YAML 1.1, and fails with an assertion on 1.3
        message = "the directives %YAML and %TAG are not supported, this is read as YAML 1.2; remove the line"
        raise InvalidConfigError([Mistake(Lines(text, source).where(directive.start()), "", message)])
    events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
    composer = Composer(events.__next__, source, resolver)
    try:
        return composer.document()
    except MarkedYAMLError as error:
        mistake = _syntax(error, source)
    except YAMLError as error:
        mistake = Mistake(_reached(composer, source), "", f"YAML syntax: {' '.join(str(error).split())}")
    except (ValueError, OverflowError):  # of chr(), for an escape like "\UFFFFFFFF"
        message = "YAML syntax: after this, an escape in double quotes names no character"
        mistake = Mistake(_reached(composer, source), "", message)
    raise InvalidConfigError([*composer.mistakes, mistake])


def _syntax(error: MarkedYAMLError, source: str) -> Mistake:
    """Return a syntax error as a mistake, at the place that a user has to look at."""
    mark, begin = error.problem_mark or error.context_mark, error.context_mark
    message = " ".join(str(error.problem or error.context).split())
    if "\\t" in message:
        message = "a tab stands where an indentation or a value is expected; indent with spaces"
    elif error.context == "while scanning a quoted scalar" and begin is not None:
        if "unexpected end" in message or "document separator" in message:
            mark, message = begin, "this quote is not closed"
    elif str(error.context).startswith("while parsing a flow") and begin is not None:
        message += f"; the bracket of line {begin.line + 1}, column {begin.column + 1} is not closed before it"
    where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    return Mistake(where, "", f"YAML syntax: {message}")


def _reached(composer: Composer, source: str) -> str:
    line, column = composer.reached
    return f"{source}:{line}:{column}"
