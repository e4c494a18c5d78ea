"""What a config file may hold at most, and what no format takes: one rule for YAML, JSON and TOML."""

from __future__ import annotations

import math
import re
from typing import Final

from treenail.adapters.documents.document import InvalidConfigError, Mistake
from treenail.adapters.documents.lines import Lines
from treenail.kernel import ConfigError

MAX_BYTES: Final = 2_000_000
MAX_WRITTEN: Final = 10_000_000
MAX_DEPTH: Final = 100
MAX_VALUES: Final = 100_000
MAX_SCALAR: Final = 1_000_000
MAX_MISTAKES: Final = 1_000
MAX_DIGITS: Final = 4_300  # Python's own limit for decimal text to int; above it int() takes quadratic time

TOO_DEEP: Final = f"this is nested too deeply, more than {MAX_DEPTH} levels"
TOO_MANY: Final = f"the file expands to more than {MAX_VALUES:,} values; a config is not the place for data"
TOO_LONG: Final = f"this text is longer than {MAX_SCALAR:,} characters; a config is not the place for data"
TOO_WRONG: Final = f"there are more than {MAX_MISTAKES:,} mistakes before this; the rest was not read"
BAD_KEY: Final = "a key must be a word or a whole number"

_PRINTABLE = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F)])
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class RefusedValueError(ValueError):
    """A scalar was understood and cannot be taken; its text says why. Readers turn it into a `Mistake` with a place."""


class LimitError(Exception):
    """A limit was passed, so that reading stops here; readers turn it into their last `Mistake`.

    Args:
        message: Which limit.
        line: From 1.
        column: From 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def checked_source(text: str, source: str) -> str:
    r"""Return a file's text with `\n` at the end of each line, if it has a reasonable length and only what editors show.

    Raises:
        InvalidConfigError: There is a control character, a lone surrogate or a byte order mark.
        ConfigError: The text is too long.
    """
    if len(text) > MAX_BYTES:
        raise too_large(source)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii() and not text.encode("ascii").translate(None, _PRINTABLE):  # many times faster than the pattern
        return text
    found = _UNPRINTABLE.search(text)
    if found is None:
        return text
    if found.start() == 0 and found[0] == "\ufeff":
        message = "the file begins with a byte order mark (BOM); save it as UTF-8 without one"
    else:
        message = f"unacceptable character U+{ord(found[0]):04X}; remove it, or write it as an escape in double quotes"
    raise InvalidConfigError([Mistake(Lines(text, source).where(found.start()), "", message)])


def too_large(source: str) -> ConfigError:
    """Return the error for a file with too many bytes."""
    return ConfigError(
        f"the file is larger than {MAX_BYTES:,} bytes", where=source, mend="a config is not the place for data"
    )


def empty_file(source: str) -> ConfigError:
    """Return the error for a file without content."""
    return ConfigError("the file is empty", where=source, mend="`treenail template run` prints a config to begin with")


def checked_text(text: str) -> str:
    """Return the text of a quoted scalar, its escaped surrogate pairs joined.

    Raises:
        RefusedValueError: It holds a lone surrogate or NUL, which no file and no name can hold.
    """
    if len(text) > MAX_SCALAR:
        raise RefusedValueError(TOO_LONG)
    if not text.isascii() and _SURROGATE.search(text):
        try:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise RefusedValueError("this text holds half a surrogate pair (\\ud800 to \\udfff); write both") from None
    if "\0" in text:
        raise RefusedValueError("this text holds NUL (\\0), which no name and no path can hold; remove it")
    return text


def whole_number(digits: str, base: int = 10) -> int:
    """Return the int that digits stand for; a sign, underscores and, for its base, the prefix may be there.

    Raises:
        RefusedValueError: There are too many digits.
    """
    if len(digits) > MAX_DIGITS and sum(map(str.isalnum, digits)) > MAX_DIGITS:
        raise RefusedValueError(f"this number has more than {MAX_DIGITS:,} digits")
    return int(digits, base)


def real_number(text: str) -> float:
    """Return the float that a decimal number, `inf` or `nan` stands for.

    Raises:
        RefusedValueError: It is too large for a float, which would silently be infinity.
    """
    value = float(text)
    if math.isinf(value) and "inf" not in text:
        shown = text if len(text) <= 30 else f"{text[:27]}…"
        raise RefusedValueError(f"{shown} is too large for a float; at most 1.7976931348623157e308")
    return value
