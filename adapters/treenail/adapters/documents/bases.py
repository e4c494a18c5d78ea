"""Where a base lies: beside the file that names it, in the configs of an installed package, or in a store."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from treenail.adapters.documents.uris import Location, Uri, is_uri, location
from treenail.kernel import ConfigError, did_you_mean

_CONFIGS = (("configs",), (".mim", "configs"))  # the second is where OpenMMLab's packages install theirs
_SHOWN = 5


def find_base(name: str, named_in: Location) -> tuple[Location, str | None]:
    """Return the file that an entry of `_base_` names, and the package if it names one.

    Args:
        name: ``optimizer.yaml``, relative to the file that names it; ``package::schedules/short.yaml``; or a URI.
        named_in: That file.

    Raises:
        LookupError: There is none, or a config may not have it as a base; the text says which. Whether a store has one is
            found out by whoever reads it.
    """
    path, package = _named(name, named_in)
    if path.suffix == ".py":
        raise LookupError(
            f"{path} is Python, and reading a base runs no code; name a .yaml, .json or .toml file, "
            "or write this config in Python too and call the other's functions"
        )
    if isinstance(path, Path) and not os.path.isfile(path):  # Path.is_file() raises for a name that is too long
        raise LookupError(_missing(path))
    return path, package


def _named(name: str, named_in: Location) -> tuple[Location, str | None]:
    package, colons, inner = name.partition("::")
    if colons and not is_uri(name):
        return _in_package(package, inner), package
    if isinstance(named_in, Uri):
        return named_in.base(name), None
    try:
        found = location(name)
    except ConfigError as error:
        raise LookupError(str(error)) from None
    return (found if isinstance(found, Uri) else _tidy(named_in.parent / found)), None


def _in_package(package: str, inner: str) -> Path:
    if not package.isidentifier():
        raise LookupError(f"'{package}' is no name of a top-level package; write package::path/in/its/configs.yaml")
    parts = PurePosixPath(inner).parts
    if not parts or PurePosixPath(inner).is_absolute() or ".." in parts or "\\" in inner or ":" in inner:
        raise LookupError(f"'{inner}' leads out of the configs of '{package}'; write a path inside that folder")
    try:
        spec = find_spec(package)  # a top-level name is found without importing anything
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise LookupError(f"the package '{package}' is not installed; install it, or write a path without ::")
    folders = [Path(place, *names) for place in spec.submodule_search_locations or () for names in _CONFIGS]
    folders = [folder for folder in folders if os.path.isdir(folder)]
    if not folders:
        raise LookupError(f"the package '{package}' has no folder 'configs' (or '.mim/configs')")
    return next((each for each in (folder / inner for folder in folders) if os.path.isfile(each)), folders[0] / inner)


def _missing(path: Path) -> str:
    if os.path.isdir(path):
        return f"{path} is a directory; name a file in it"
    try:
        there = sorted(entry.name for entry in os.scandir(path.parent) if entry.is_file())
    except OSError:
        return f"there is no file {path}, nor its directory"
    others = f"; there are {', '.join(there[:_SHOWN])}{', …' if len(there) > _SHOWN else ''}" if there else ""
    hint = did_you_mean(path.name, there)
    return f"there is no file {path}; {hint}" if hint else f"there is no file {path}{others}"


def _tidy(path: Path) -> Path:
    """Return a path without ``..`` where that is the same file, for shorter messages."""
    short = Path(os.path.normpath(path))
    return short if os.path.realpath(short) == os.path.realpath(path) else path
