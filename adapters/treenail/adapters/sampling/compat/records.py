"""Records in text files, found through an index of several levels; and the building of such an index.

An index is a JSON file ``{"list": […], "index_level": n}`` (a list of records for level 1, of paths of files otherwise, whose
lines are paths again until level 2, and records then), or a text file with a record in each line. ``"counts"``, which
`build_index` writes, tells how many records lie below each entry of the list.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from treenail.adapters.files import LocalFiles
from treenail.adapters.sampling.epochs import at_least
from treenail.kernel import FileBackend, FileError

_REBUILD = "build the index again"


class RecordIndex:
    """The files of an index, read when they are needed; the last ones stay in memory.

    Args:
        files: Where they lie.
        path: The index file in `files`.
        cached_files: The most files that stay in memory.

    Attributes:
        level: 1 where the index holds the records itself, 2 where it holds paths of their files, and so on.
        entries: Its list.
        counts: How many records lie below each entry, where it tells.

    Raises:
        FileError: The index is missing, malformed or empty.
    """

    def __init__(self, files: FileBackend, path: str, *, cached_files: int = 64) -> None:
        self._files = files
        self._folder = PurePosixPath(path).parent
        self._cached_files = cached_files
        self._cache: OrderedDict[str, list[str]] = OrderedDict()
        self.path = path
        self.level, self.entries, self.counts = (
            self._parsed() if path.endswith(".json") else (1, self.lines(path), None)
        )
        if not self.entries:
            raise FileError("the index is empty", where=self._where(path), mend=_REBUILD)

    def _parsed(self) -> tuple[int, list[str], list[int] | None]:
        where = self._where(self.path)
        try:
            parsed = json.loads(self._files.read(self.path))
        except ValueError as error:
            raise FileError(f"the index is no JSON: {error}", where=where, mend=_REBUILD) from None
        known = parsed if isinstance(parsed, dict) else {}
        entries, level, counts = known.get("list"), known.get("index_level", 1), known.get("counts")
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise FileError('the index has no "list" of texts', where=where, mend=_REBUILD)
        if type(level) is not int or level < 1:
            raise FileError(f'"index_level" is {level!r}, must be 1 or more', where=where, mend=_REBUILD)
        if counts is not None and (
            not isinstance(counts, list)
            or len(counts) != len(entries)
            or any(type(count) is not int or count < 1 for count in counts)
        ):
            raise FileError('"counts" is no list of a positive number for each entry', where=where, mend=_REBUILD)
        return level, entries, counts

    def _where(self, path: str) -> str:
        return f"{self._files.uri.rstrip('/')}/{path}"

    def lines(self, path: str) -> list[str]:
        """Return the lines of a file that are not blank.

        Raises:
            FileError: It is missing, no UTF-8, or has no line.
        """
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        try:
            text = self._files.read(path).decode()
        except UnicodeDecodeError as error:
            raise FileError(
                f"the file is no UTF-8: {error}", where=self._where(path), mend="write it as UTF-8"
            ) from None
        # At line feeds only: str.splitlines also breaks at characters that occur in captions.
        lines = [line for each in text.split("\n") if (line := each.rstrip("\r")).strip()]
        if not lines:
            raise FileError("the file holds no record", where=self._where(path), mend=f"leave it out and {_REBUILD}")
        self._cache[path] = lines
        if len(self._cache) > self._cached_files:
            self._cache.popitem(last=False)
        return lines

    def located(self, entry: str) -> str:
        """Return the path in `files` that an entry of a list stands for.

        A relative one is taken from the folder of the index. One that leads elsewhere is of an index that was moved with its
        files: its last two components are taken from that folder.
        """
        folder = self._folder
        root = PurePosixPath(self._files.uri.removeprefix("file://")) / folder
        path = PurePosixPath(entry)
        if path.is_absolute() and path.is_relative_to(root):
            path = path.relative_to(root)
        elif path.is_absolute() or "://" in entry:
            path = PurePosixPath(*path.parts[-2:])
        return str(folder / path)

    def record_paths(self) -> list[str]:
        """Return the files of all records.

        Raises:
            FileError: One that lists them is missing or empty.
        """
        paths = [self.located(entry) for entry in self.entries]
        for _ in range(self.level - 2):
            paths = [self.located(entry) for path in paths for entry in self.lines(path)]
        return paths

    def record_files(self) -> tuple[list[str], list[int]]:
        """Return the files of all records and how many each holds; without counts in the index, every one is read.

        Raises:
            FileError: One is missing or empty.
        """
        paths = self.record_paths()
        if self.level == 2 and self.counts is not None:
            return paths, self.counts
        return paths, [len(self.lines(path)) for path in paths]

    def records(self, path: str, count: int | None = None) -> list[str]:
        """Return the records of a file.

        Args:
            path: The file in `files`.
            count: How many it should hold.

        Raises:
            FileError: It is missing, empty, or holds another number of records.
        """
        lines = self.lines(path)
        if count is not None and count != len(lines):
            raise FileError(
                f"the file holds {len(lines)} records, its index counts {count}", where=self._where(path), mend=_REBUILD
            )
        return lines


def build_index(list_file: str | os.PathLike[str], max_lines: int = 1024, index_name: str = "index") -> Path:
    """Split a file with a record in each line into parts, and write an index of them.

    For ``train.txt``, the parts are ``train/index/000000000.txt`` and so on, the index is ``train/index.json``. It is
    written last, and each file as a whole or not at all; blank lines are left out.

    Args:
        list_file: The file, in UTF-8.
        max_lines: The most records of a part.
        index_name: Name of the index and of the folder of its parts.

    Returns:
        The index file.

    Raises:
        ValueError: max_lines is not positive, or index_name is no name of a file.
        FileError: There is such an index already, or the file is missing or holds no record.
    """
    max_lines = at_least(1, max_lines, "max_lines")
    if not index_name or index_name in {".", ".."} or index_name != Path(index_name).name:
        raise ValueError(f"index_name is {index_name!r}, must be the name of a file")
    source = Path(list_file)
    folder = source.parent / source.stem
    target = folder / f"{index_name}.json"
    if target.exists():
        raise FileError(
            "there is such an index already", where=str(target), mend="delete it or choose another index_name"
        )
    if not source.is_file():
        raise FileError("there is no such file", where=str(source), mend="list the records in it, one in each line")
    files = LocalFiles(folder)
    entries, counts = [], []
    with source.open("rb") as stream:
        records = (line.rstrip(b"\r\n") for line in stream if line.strip())
        for number, part in enumerate(_parts(records, max_lines)):
            entries.append(f"{index_name}/{number:09d}.txt")
            counts.append(len(part))
            files.write(entries[-1], b"".join(line + b"\n" for line in part))
    if not entries:
        raise FileError("the file holds no record", where=str(source), mend="list the records in it, one in each line")
    index = {"list": entries, "index_level": 2, "counts": counts}
    files.write(target.name, json.dumps(index, indent=0).encode())
    return target


def init_1level_llfs(list_file: str | os.PathLike[str], max_lines: int = 1024, index_name: str = "index") -> Path:
    """Call `build_index`, under the name that SCEPTER has for it."""
    return build_index(list_file, max_lines, index_name)


def _parts(records: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    return iter(lambda: list(islice(records, size)), [])
