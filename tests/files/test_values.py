"""Values in files by suffix; lists and dicts in text files."""

from __future__ import annotations

import io
import math
import pickle
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.files import (
    FileFormat,
    dict_from_file,
    dump,
    installed_formats,
    list_from_file,
    load,
    put,
    put_text,
)
from treenail.kernel import Adapter, FileError, FileMissingError, Registry, RegistryError, SpecError

TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml", "msgpack"])
@given(value=PLAIN)
@settings(deadline=None, max_examples=40)
def test_plain_data_comes_back(suffix: str, value: object) -> None:
    file = f"memory://values/x.{suffix}"
    dump(value, file)
    assert load(file) == value
    assert load(io.BytesIO(dump(value, file_format=suffix)), suffix) == value


def test_arrays_and_tensors_come_back(tmp_path: Path) -> None:
    dump({"a": np.arange(3, dtype=np.int8), "b": np.float64(2)}, tmp_path / "x.npz", compress=True)
    arrays = load(tmp_path / "x.npz")
    assert isinstance(arrays, dict)
    assert arrays["a"].dtype == np.int8
    assert arrays["a"].tolist() == [0, 1, 2]
    assert float(arrays["b"]) == 2
    dump(np.eye(2), tmp_path / "x.npy")
    assert np.array_equal(np.eye(2), load(tmp_path / "x.npy"))  # type: ignore[arg-type]  # load gives any object
    tensors = {"w": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T}
    for suffix in ("safetensors", "pt", "pth"):
        dump(tensors, tmp_path / f"x.{suffix}")
        loaded = load(tmp_path / f"x.{suffix}")
        assert isinstance(loaded, dict)
        assert torch.equal(loaded["w"], tensors["w"]), suffix
    dump({"title": "x", "n": [1, 2]}, tmp_path / "x.toml")
    assert load(tmp_path / "x.toml") == {"title": "x", "n": [1, 2]}
    dump("grüße", tmp_path / "x.txt", encoding="latin-1")
    assert (tmp_path / "x.txt").read_bytes() == b"gr\xfc\xdfe"
    assert load(tmp_path / "x.txt", encoding="latin-1") == "grüße"


@dataclass
class Box:
    corner: tuple[int, int]


def test_json_writes_what_annotations_hold_and_refuses_what_it_would_change() -> None:
    value = {"set": {1}, "range": range(2), "number": np.float32(1.5), "array": np.eye(1), "box": Box((1, 2))}
    written = dump(value, file_format="json")
    assert written == b'{"set": [1], "range": [0, 1], "number": 1.5, "array": [[1.0]], "box": {"corner": [1, 2]}}'
    with pytest.raises(FileError, match=r"\$\.a\[0\] has the key 1, and JSON has only texts"):
        dump({"a": [{1: 2}]}, file_format="json")
    assert dump({1: 2}, file_format="json", text_keys=True) == b'{"1": 2}'
    assert math.isnan(load(io.BytesIO(b"NaN"), "json"))  # type: ignore[arg-type]  # load gives any object
    with pytest.raises(FileError, match="not JSON compliant"):
        dump(math.nan, file_format="json", allow_nan=False)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, ("raise SystemExit('it ran')",)


def test_no_code_runs_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Bomb()))
    torch.save(Bomb(), tmp_path / "x.pth")
    np.save(tmp_path / "x.npy", np.array([Bomb()], dtype=object))
    np.savez(tmp_path / "x.npz", a=np.array([Bomb()], dtype=object))
    (tmp_path / "x.yaml").write_text("!!python/object/apply:os.system ['false']")
    for name in ("x.pkl", "x.pth", "x.npy", "x.npz", "x.yaml"):
        with pytest.raises(FileError):
            load(tmp_path / name)
    with pytest.raises(FileError, match="say allow_pickle=True if you trust its writer"):
        dump([1], tmp_path / "y.pkl")
    with pytest.raises(FileError, match=r"y\.npz: cannot be written as numpy.*hold Python objects"):
        dump({"a": np.array([object()])}, tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()
    dump({1}, tmp_path / "y.pkl", allow_pickle=True)
    assert load(tmp_path / "y.pkl", allow_pickle=True) == {1}


def test_mistakes_say_the_file_and_the_mend(tmp_path: Path) -> None:
    put(b"{", tmp_path / "torn.json")
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: load(tmp_path / "none.json"), FileMissingError, "none.json"),
        (lambda: load(tmp_path / "torn.json"), FileError, "torn.json: cannot be read as json: JSONDecodeError"),
        (lambda: load(tmp_path / "x"), FileError, "say file_format, for example 'json'"),
        (lambda: load(tmp_path / "x.jsn"), RegistryError, "did you mean 'json'"),
        (lambda: dump(1, tmp_path / "x.json", ident=2), SpecError, "takes no 'ident'; did you mean 'indent'"),
        (lambda: dump(1), FileError, "say file_format"),
        (lambda: dump([1], tmp_path / "x.toml"), FileError, "a TOML document is a table, not a list"),
        (lambda: dump(object(), tmp_path / "torn.json"), FileError, "Encoding objects of type object is unsupported"),
    ]
    for call, error, message in cases:
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)
    assert (tmp_path / "torn.json").read_bytes() == b"{", "a dump that failed changed the file"


class Reversed:
    """A user's format."""

    def encode(self, value: object, /) -> bytes:
        return str(value)[::-1].encode()

    def decode(self, data: bytes, /) -> object:
        return data.decode()[::-1]


def test_formats_can_be_added(tmp_path: Path) -> None:
    mine: Registry[FileFormat] = Registry("format")
    for package, adapter in installed_formats():
        mine.declare(adapter, package)
    mine.register(Reversed, "rev")
    dump("abc", tmp_path / "x.rev", formats=mine)
    assert (tmp_path / "x.rev").read_text() == "cba"
    assert load(tmp_path / "x.rev", formats=mine) == "abc"
    assert isinstance(next(iter(installed_formats()))[1], Adapter)
    with pytest.raises(RegistryError):
        load(tmp_path / "x.rev")


def test_an_open_file_is_read_and_written(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as text, (tmp_path / "b").open("wb") as binary:
        dump({"a": 1}, text, "json")
        dump({"a": 1}, binary, "json")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b'{"a": 1}'
    with (tmp_path / "a").open() as text, (tmp_path / "b").open("rb") as binary:
        assert load(text, "json") == load(binary, "json") == {"a": 1}
    buffer = io.StringIO()
    dump([1], buffer, "yaml")
    assert buffer.getvalue() == "- 1\n"


def test_a_suffix_is_that_of_the_name_and_not_of_a_query(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            (tmp_path / "x.json").write_bytes(b"[1]")
            url = f"http://127.0.0.1:{server.server_port}"
            assert load(f"{url}/x.json?sig=abc/def.npz") == [1]
            assert load(f"{url}/x.json?sig=a#sha256={sha256(b'[1]').hexdigest()}") == [1]
        finally:
            server.shutdown()
    put(b"[2]", "memory://suffix/a?b.json")
    assert load("memory://suffix/a?b.json") == [2], "elsewhere, a question mark is a letter"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/x.json", "[3]")
    assert load(f"zip://{tmp_path}/a.zip!/in/x.json") == [3]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        """Print nothing."""


def test_lists_in_text_files_as_the_guide_of_mmengine_shows() -> None:
    put_text("a\nb\nc\nd\ne\n", "memory://lists/a.txt")
    assert list_from_file("memory://lists/a.txt") == ["a", "b", "c", "d", "e"]
    assert list_from_file("memory://lists/a.txt", offset=2) == ["c", "d", "e"]
    assert list_from_file("memory://lists/a.txt", max_num=2) == ["a", "b"]
    assert list_from_file("memory://lists/a.txt", prefix="/mnt/") == ["/mnt/a", "/mnt/b", "/mnt/c", "/mnt/d", "/mnt/e"]
    put_text("a\r\n\r\nb\x85c\u2028d", "memory://lists/b.txt")
    assert list_from_file("memory://lists/b.txt") == ["a", "", "b\x85c\u2028d"], "only line ends divide"
    with pytest.raises(FileError, match="offset is -1"):
        list_from_file("memory://lists/a.txt", offset=-1)
    put(b"\xff", "memory://lists/c.txt")
    with pytest.raises(FileError, match="not text in utf-8"):
        list_from_file("memory://lists/c.txt")


def test_dicts_in_text_files_as_the_guide_of_mmengine_shows() -> None:
    put_text("1 cat\n2 dog cow\n3 panda\n", "memory://lists/d.txt")
    assert dict_from_file("memory://lists/d.txt") == {"1": "cat", "2": ["dog", "cow"], "3": "panda"}
    assert dict_from_file("memory://lists/d.txt", key_type=int) == {1: "cat", 2: ["dog", "cow"], 3: "panda"}
    for text, message in (
        ("1 cat\n2\n", r"d.txt:2: the line '2' has a key and no value"),
        ("1 a\n1 b\n", r"d.txt:2: the key '1' comes twice"),
        ("x a\n", r"d.txt:1: the key 'x' is none"),
    ):
        put_text(text, "memory://lists/d.txt")
        with pytest.raises(FileError, match=message):
            dict_from_file("memory://lists/d.txt", key_type=int)
