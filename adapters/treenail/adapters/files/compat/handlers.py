"""mmengine's file handlers, and `load` and `dump` by them."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from treenail.adapters.files.compat.choosing import Arguments, FileClient, get_file_backend
from treenail.adapters.files.compat.errors import ArgumentTypeError, ArgumentValueError, as_python_errors
from treenail.adapters.files.compat.storage import BaseStorageBackend, text_of
from treenail.adapters.files.compat.yaml_types import dumper, loader, yaml
from treenail.adapters.files.operations import AnyPath
from treenail.adapters.files.paths import redacted
from treenail.kernel import FileError

H = TypeVar("H", bound="type[BaseFileHandler]")
OpenFile = IO[Any]  # of texts or bytes, as the handler says


class BaseFileHandler(ABC):
    """Writes values to open files and reads them; a subclass defines the three abstract methods."""

    str_like: ClassVar[bool] = True
    """Whether its files hold text; where a subclass says nothing and defines the methods of paths, those say it."""

    @abstractmethod
    def load_from_fileobj(self, file: OpenFile) -> Any:  # any value
        """Return the value that an open file holds."""

    @abstractmethod
    def dump_to_fileobj(self, obj: Any, file: OpenFile) -> None:  # any value
        """Write a value to an open file."""

    @abstractmethod
    def dump_to_str(self, obj: Any) -> str | bytes:  # any value
        """Return a value as text or bytes."""

    def load_from_path(
        self, filepath: AnyPath, mode: str = "r", **kwargs: Any
    ) -> Any:  # any value, any handler's options
        """Return the value that a local file holds."""
        with as_python_errors():
            file = open(filepath, mode, encoding=None if "b" in mode else "utf-8")  # noqa: SIM115  # closed below
        with file:
            return self.load_from_fileobj(file, **kwargs)

    def dump_to_path(self, obj: Any, filepath: AnyPath, mode: str = "w", **kwargs: Any) -> None:  # as above
        """Write a value to a local file."""
        with as_python_errors():
            file = open(filepath, mode, encoding=None if "b" in mode else "utf-8")  # noqa: SIM115  # closed below
        with file:
            self.dump_to_fileobj(obj, file, **kwargs)


class JsonHandler(BaseFileHandler):
    """JSON; sets, ranges and numpy's arrays and numbers are written as lists and numbers. Options are those of `json`."""

    def load_from_fileobj(self, file: OpenFile, **kwargs: Any) -> Any:  # json's options; any value
        """Return the value that an open file holds."""
        return json.load(file, **kwargs)

    def dump_to_fileobj(self, obj: Any, file: OpenFile, **kwargs: Any) -> None:  # any value; json's options
        """Write a value to an open file."""
        json.dump(obj, file, **{"default": _plain, **kwargs})

    def dump_to_str(self, obj: Any, **kwargs: Any) -> str:  # any value; json's options
        """Return a value as text."""
        return json.dumps(obj, **{"default": _plain, **kwargs})


class PickleHandler(BaseFileHandler):
    """Python's pickles. Options are those of `pickle`; the protocol is 2 unless they say another.

    Args:
        allow_pickle: Read pickles, which run code of whoever wrote them.
    """

    str_like = False

    def __init__(self, *, allow_pickle: bool = False) -> None:
        self.allow_pickle = allow_pickle

    def load_from_fileobj(
        self, file: OpenFile, *, allow_pickle: bool = False, **kwargs: Any
    ) -> Any:  # pickle's options
        """Return what was pickled.

        Raises:
            ArgumentValueError: Nobody said `allow_pickle`.
        """
        if not (allow_pickle or self.allow_pickle):
            raise ArgumentValueError(
                "a pickle runs code of whoever wrote it when it is read",
                mend="say load(…, allow_pickle=True) if you trust its writer, or once for the program "
                "register_handler(['pkl', 'pickle'], allow_pickle=True)(PickleHandler)",
            )
        return pickle.load(file, **kwargs)  # asked for by allow_pickle

    def load_from_path(self, filepath: AnyPath, mode: str = "rb", **kwargs: Any) -> Any:  # as above
        """Return what was pickled in a local file."""
        return super().load_from_path(filepath, mode, **kwargs)

    def dump_to_fileobj(self, obj: Any, file: OpenFile, **kwargs: Any) -> None:  # any value; pickle's options
        """Pickle a value to an open file."""
        pickle.dump(obj, file, **{"protocol": 2, **kwargs})

    def dump_to_path(self, obj: Any, filepath: AnyPath, mode: str = "wb", **kwargs: Any) -> None:  # as above
        """Pickle a value to a local file."""
        super().dump_to_path(obj, filepath, mode, **kwargs)

    def dump_to_str(self, obj: Any, **kwargs: Any) -> bytes:  # any value; pickle's options
        """Return a pickle."""
        return pickle.dumps(obj, **{"protocol": 2, **kwargs})


class YamlHandler(BaseFileHandler):
    """YAML 1.1, the safe types and tuples only. Options are those of PyYAML, so another `Loader` may be said."""

    def load_from_fileobj(self, file: OpenFile, **kwargs: Any) -> Any:  # PyYAML's options; any value
        """Return the document's value."""
        return yaml().load(file, **{"Loader": loader(), **kwargs})

    def dump_to_fileobj(self, obj: Any, file: OpenFile, **kwargs: Any) -> None:  # any value; PyYAML's options
        """Write a value to an open file."""
        yaml().dump(obj, file, **{"Dumper": dumper(), **kwargs})

    def dump_to_str(self, obj: Any, **kwargs: Any) -> str:  # any value; PyYAML's options
        """Return a value as text."""
        text: str = yaml().dump(obj, **{"Dumper": dumper(), **kwargs})
        return text


_HANDLERS: dict[str, BaseFileHandler] = {
    "json": JsonHandler(),
    "yaml": YamlHandler(),
    "yml": YamlHandler(),
    "pickle": PickleHandler(),
    "pkl": PickleHandler(),
}
"""What `register_handler` adds to: registering in one place for the whole program is what that function is for."""


def register_handler(file_formats: str | Sequence[str], **kwargs: Any) -> Callable[[H], H]:  # any handler's arguments
    """Let `load` and `dump` know a handler by suffixes, in the place of those that had them.

    Args:
        file_formats: A suffix without its dot, or several.
        **kwargs: Of the handler's constructor.

    Raises:
        ArgumentTypeError: The formats are no texts, or the decorated class is no `BaseFileHandler`.
    """
    formats = [file_formats] if isinstance(file_formats, str) else file_formats
    if not isinstance(formats, list | tuple) or not all(isinstance(each, str) for each in formats):
        raise ArgumentTypeError(f"file_formats is a str or a list of them, not {file_formats!r}")

    def register(handler: H) -> H:
        made: object = handler(**kwargs)
        if not isinstance(made, BaseFileHandler):
            raise ArgumentTypeError(f"{handler!r} is no subclass of BaseFileHandler")
        _HANDLERS.update(dict.fromkeys(formats, made))
        return handler

    return register


def load(
    file: AnyPath | OpenFile,
    file_format: str | None = None,
    file_client_args: Arguments | None = None,
    backend_args: Arguments | None = None,
    *,
    allow_pickle: bool = False,
    **kwargs: Any,  # any handler's options
) -> Any:  # any value
    """Return the value that a file holds.

    What a handler raises is raised as it is, with a note that names the file.

    Args:
        file: Path, URI, or an open file.
        file_format: json, yaml, yml, pickle, pkl or a registered one; the suffix when None.
        file_client_args: Old form of `backend_args`.
        backend_args: Name ("backend") and arguments of the backend.
        allow_pickle: Read pickles, which run code of whoever wrote them.
        **kwargs: Of the handler.

    Raises:
        ArgumentTypeError: The format is not known, or `file` is neither path nor file.
        ArgumentValueError: It is a pickle, and `allow_pickle` is False.
        FileError: The store failed; also a FileNotFoundError or another OSError.
    """
    path, handler = _handler(file, file_format)
    options = {**kwargs, "allow_pickle": True} if allow_pickle and isinstance(handler, PickleHandler) else kwargs
    if path is None:
        return handler.load_from_fileobj(file, **options)  # type: ignore[arg-type]  # no path, so an open file
    store = chosen(path, file_client_args, backend_args)
    with _noting(path):
        if _opens_itself(handler, "load_from_path"):
            with store.get_local_path(path) as local:
                return handler.load_from_path(local, **options)
        if handler.str_like:
            return handler.load_from_fileobj(io.StringIO(text_of(store, path)), **options)
        return handler.load_from_fileobj(io.BytesIO(store.get(path)), **options)


def dump(
    obj: Any,  # any value
    file: AnyPath | OpenFile | None = None,
    file_format: str | None = None,
    file_client_args: Arguments | None = None,
    backend_args: Arguments | None = None,
    **kwargs: Any,  # any handler's options
) -> str | bytes | None:
    """Write a value to a file, whole or not at all; return it as text or bytes where there is no file.

    What a handler raises is raised as it is, with a note that names the file.

    Args:
        obj: What to write.
        file: Path, URI, or an open file.
        file_format: json, yaml, yml, pickle, pkl or a registered one; the suffix when None.
        file_client_args: Old form of `backend_args`.
        backend_args: Name ("backend") and arguments of the backend.
        **kwargs: Of the handler.

    Raises:
        ArgumentTypeError: The format is not known, or `file` is neither path nor file.
        ArgumentValueError: There are neither file nor format.
        FileError: The store refused or failed; also an OSError.
    """
    if file is None:
        if file_format is None:
            raise ArgumentValueError(
                "there are neither file nor file_format", mend="say file_format, for example 'json'"
            )
        return _handler(file, file_format)[1].dump_to_str(obj, **kwargs)
    path, handler = _handler(file, file_format)
    if path is None:
        handler.dump_to_fileobj(obj, file, **kwargs)  # type: ignore[arg-type]  # no path, so an open file
        return None
    store = chosen(path, file_client_args, backend_args)
    with _noting(path):
        if _opens_itself(handler, "dump_to_path"):
            with TemporaryDirectory(prefix="treenail-") as folder:
                local = Path(folder) / "dumped"
                handler.dump_to_path(obj, str(local), **kwargs)
                store.put(local.read_bytes(), path)
        elif handler.str_like:
            text = io.StringIO()
            handler.dump_to_fileobj(obj, text, **kwargs)
            store.put_text(text.getvalue(), path)
        else:
            data = io.BytesIO()
            handler.dump_to_fileobj(obj, data, **kwargs)
            store.put(data.getvalue(), path)
    return None


def chosen(path: AnyPath, file_client_args: Arguments | None, backend_args: Arguments | None) -> BaseStorageBackend:
    """Return the backend that the arguments mean, of which those of `FileClient` are the old form.

    Raises:
        ArgumentValueError: Both are given.
    """
    if file_client_args is None:
        return get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    warnings.warn("'file_client_args' is the old form of 'backend_args'", DeprecationWarning, stacklevel=3)
    if backend_args is not None:
        raise ArgumentValueError("file_client_args and backend_args are the same thing", mend="give backend_args only")
    return FileClient.infer_client(file_client_args, path).client


def _handler(file: object, file_format: str | None) -> tuple[str | None, BaseFileHandler]:
    """Return the path, None of an open file, and what reads and writes it."""
    path = os.fspath(file) if isinstance(file, str | os.PathLike) else None
    if file_format is None and path is not None:
        name = urlsplit(path).path if path.startswith(("http://", "https://")) else path  # a query is no suffix
        file_format = name.rpartition(".")[2]
    handler = _HANDLERS.get(file_format or "")
    if handler is None:
        known = f"known are {', '.join(_HANDLERS)}; register_handler adds others"
        raise ArgumentTypeError(f"there is no handler of {file_format!r}", where=path, mend=known)
    if path is None and file is not None and not (hasattr(file, "read") or hasattr(file, "write")):
        raise ArgumentTypeError(f"{file!r} is neither a path nor an open file")
    return path, handler


def _opens_itself(handler: BaseFileHandler, method: str) -> bool:
    """Return whether the methods of paths, not a flag, say if a handler's files hold text: as in mmengine's own guide."""
    for each in type(handler).__mro__:
        if "str_like" in vars(each):
            return False
        if method in vars(each):
            return True
    return False


def _plain(value: object) -> object:
    numpy = sys.modules.get("numpy")  # where nobody has imported it, there is nothing of it
    if isinstance(value, set | range):
        return list(value)
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        plain: object = value.tolist()
        return plain
    raise ArgumentTypeError(f"JSON has no form of a {type(value).__name__}")


@contextmanager
def _noting(path: str) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        error.add_note(f"the file is {redacted(path)}")
        raise
