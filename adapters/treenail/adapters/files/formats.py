"""File formats: values to bytes and back. None but pickle, and torch's when told to, can run code while it is read."""

from __future__ import annotations

import io
import json
import pickle
import tomllib
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import msgspec

from treenail.kernel import FileError, require


@runtime_checkable
class FileFormat(Protocol):
    """A way to write values as bytes. A class of them takes its options as keyword arguments."""

    def encode(self, value: object, /) -> bytes:
        """Return a value as bytes.

        Raises:
            Exception: The format has no such value; whoever dumps says so with the file's name.
        """
        ...

    def decode(self, data: bytes, /) -> object:
        """Return the value that bytes stand for.

        Raises:
            Exception: They are not of this format; whoever loads says so with the file's name.
        """
        ...


class JsonFormat:
    """JSON (RFC 8259). Sets, ranges, tuples and numpy's numbers and arrays are written as lists and numbers.

    Args:
        indent: Spaces of an indentation; None writes one line.
        sort_keys: Write keys in order.
        text_keys: Write keys that are numbers, booleans or None as texts, which they stay when they are read; without
            it they are refused.
        allow_nan: Write NaN and infinities, which other readers than Python's may refuse.
    """

    def __init__(
        self,
        *,
        indent: int | None = None,
        sort_keys: bool = False,
        text_keys: bool = False,
        allow_nan: bool = True,
    ) -> None:
        self.indent, self.sort_keys, self.text_keys, self.allow_nan = indent, sort_keys, text_keys, allow_nan

    def encode(self, value: object, /) -> bytes:
        """Return UTF-8 text."""
        if not self.text_keys:
            _refuse_other_keys(value, "$")
        text = json.dumps(
            value,
            indent=self.indent,
            sort_keys=self.sort_keys,
            allow_nan=self.allow_nan,
            ensure_ascii=False,
            default=_plain,
        )
        return text.encode()

    def decode(self, data: bytes, /) -> object:
        """Return dicts, lists, texts, numbers, booleans and None."""
        decoded: object = json.loads(data)
        return decoded


class YamlFormat:
    """YAML 1.2, the safe types only."""

    def encode(self, value: object, /) -> bytes:
        """Return UTF-8 text."""
        from ruamel.yaml import YAML  # takes long to import

        buffer = io.BytesIO()
        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = False
        writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel declares it as None
        writer.dump(value, buffer)
        return buffer.getvalue()

    def decode(self, data: bytes, /) -> object:
        """Return the document's value."""
        from ruamel.yaml import YAML

        decoded: object = YAML(typ="safe").load(data)
        return decoded


class TomlFormat:
    """TOML 1.0; the value is a dict."""

    def encode(self, value: object, /) -> bytes:
        """Return UTF-8 text."""
        if not isinstance(value, Mapping):
            raise TypeError(f"a TOML document is a table, not a {type(value).__name__}")
        text: str = require("tomlkit", extra="toml", purpose="writing TOML").dumps(value)
        return text.encode()

    def decode(self, data: bytes, /) -> object:
        """Return a dict."""
        return tomllib.loads(data.decode())


class MsgpackFormat:
    """MessagePack (msgpack.org), by msgspec."""

    def encode(self, value: object, /) -> bytes:
        """Return packed bytes."""
        return msgspec.msgpack.encode(value, enc_hook=_plain)

    def decode(self, data: bytes, /) -> object:
        """Return what was packed; tuples come back as lists."""
        decoded: object = msgspec.msgpack.decode(data)
        return decoded


class TextFormat:
    """A text.

    Args:
        encoding: Of the file.
    """

    def __init__(self, *, encoding: str = "utf-8") -> None:
        self.encoding = encoding

    def encode(self, value: object, /) -> bytes:
        """Return encoded text."""
        if not isinstance(value, str):
            raise TypeError(f"a text is a str, not a {type(value).__name__}")
        return value.encode(self.encoding)

    def decode(self, data: bytes, /) -> object:
        """Return a str."""
        return data.decode(self.encoding)


class PickleFormat:
    """Python's pickles, which run code of whoever wrote them when they are read.

    Args:
        allow_pickle: Says that you trust whoever wrote the file.
        protocol: Of pickle; None is Python's default.
    """

    def __init__(self, *, allow_pickle: bool = False, protocol: int | None = None) -> None:
        if not allow_pickle:
            raise FileError("a pickle runs code when it is read", mend="say allow_pickle=True if you trust its writer")
        self.protocol = protocol

    def encode(self, value: object, /) -> bytes:
        """Return a pickle."""
        return pickle.dumps(value, protocol=self.protocol)

    def decode(self, data: bytes, /) -> object:
        """Return what was pickled."""
        decoded: object = pickle.loads(data)  # asked for by allow_pickle
        return decoded


class NumpyFormat:
    """numpy's arrays: one (.npy), or several by name (.npz).

    Args:
        kind: Which of the two.
        compress: Of .npz: deflate the arrays.
    """

    def __init__(self, *, kind: Literal["npy", "npz"] = "npz", compress: bool = False) -> None:
        self.kind, self.compress = kind, compress
        self._numpy = require("numpy", extra="train", purpose=f"the format .{kind}")

    def encode(self, value: object, /) -> bytes:
        """Return an array, or a dict of arrays, as bytes; objects are refused."""
        buffer = io.BytesIO()
        if self.kind == "npy":
            self._numpy.save(buffer, value, allow_pickle=False)
            return buffer.getvalue()
        if not isinstance(value, Mapping):
            raise TypeError(f".npz holds a dict of arrays, not a {type(value).__name__}")
        arrays = {name: self._numpy.asanyarray(each) for name, each in value.items()}
        if opaque := [name for name, each in arrays.items() if each.dtype.hasobject]:
            raise TypeError(f"the arrays {opaque} hold Python objects")
        (self._numpy.savez_compressed if self.compress else self._numpy.savez)(buffer, **arrays)
        return buffer.getvalue()

    def decode(self, data: bytes, /) -> object:
        """Return an array, or a dict of arrays."""
        loaded = self._numpy.load(io.BytesIO(data), allow_pickle=False)
        return dict(loaded) if self.kind == "npz" else loaded


class NpyFormat(NumpyFormat):
    """One array of numpy's."""

    def __init__(self) -> None:
        super().__init__(kind="npy")


class SafetensorsFormat:
    """Tensors by name (huggingface.co/docs/safetensors)."""

    def __init__(self) -> None:
        self._module = require("safetensors.torch", extra="train", purpose="the format .safetensors")

    def encode(self, value: object, /) -> bytes:
        """Return a dict of tensors as bytes."""
        if not isinstance(value, Mapping):
            raise TypeError(f".safetensors holds a dict of tensors, not a {type(value).__name__}")
        saved: bytes = self._module.save({name: each.contiguous() for name, each in value.items()})
        return saved

    def decode(self, data: bytes, /) -> object:
        """Return a dict of tensors on the CPU."""
        decoded: object = self._module.load(data)
        return decoded


class TorchFormat:
    """What `torch.save` writes; read with ``weights_only``.

    Args:
        allow_pickle: Read any object, which runs code of whoever wrote the file.
    """

    def __init__(self, *, allow_pickle: bool = False) -> None:
        self.allow_pickle = allow_pickle

    def encode(self, value: object, /) -> bytes:
        """Return a zip archive of torch's."""
        import torch  # takes a second

        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    def decode(self, data: bytes, /) -> object:
        """Return what was saved, tensors on the CPU."""
        import torch

        decoded: object = torch.load(io.BytesIO(data), map_location="cpu", weights_only=not self.allow_pickle)
        return decoded


def _plain(value: object) -> object:
    """Return plain data for what JSON and MessagePack have no form of."""
    if isinstance(value, set | frozenset | range):
        return list(value)
    to_list = getattr(value, "tolist", None)  # numpy's arrays and numbers, and tensors
    if callable(to_list):
        return to_list()
    return msgspec.to_builtins(value)  # dataclasses, Structs, dates, enums; TypeError for the rest


def _refuse_other_keys(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{where} has the key {key!r}, and JSON has only texts for keys (or say text_keys=True)"
                )
            _refuse_other_keys(each, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _refuse_other_keys(each, f"{where}[{index}]")
