"""What a probe shows of a value: the value itself, arrays and images as files, and how often values occur."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from io import BytesIO
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import quote

import torch
from torch import Tensor
from typing_extensions import TypeIs

from treenail.adapters.files import put
from treenail.kernel import require

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]  # Any: of any shape and dtype

Label: TypeAlias = "str | list[str] | dict[str, str]"
Logged: TypeAlias = "str | float | list[Logged] | dict[str, Logged] | None"
"""What JSON can hold."""
Value: TypeAlias = "str | float | Array | list[Value] | dict[str, Value] | None"

_CHANNELS: Final = (1, 3, 4)
_PURPOSE: Final = "probing arrays"


class ProbeData:
    """A value that is probed, and how it is shown.

    The value is copied, tensors to the CPU, when it is registered or shown. An image is [height, width] or [height, width, C]
    with C = 1, 3 or 4; a video has its frames in front of that, and several of either have one dimension more, in front. Their
    values are whole numbers from 0 to 255, booleans, or floats in [0, 1].

    Args:
        data: Text, numbers, None, tensors and arrays of any shape, and lists, tuples and mappings of these.
        is_image: Its arrays are images, and are written as such.
        build_html: A page shows the images with their labels.
        build_label: Of a page: a text; for several images a list, for a mapping a mapping of texts.
        view_distribute: Count how often each value occurs: of texts and numbers, and lists and mappings of these; an entry of a
            mapping counts as ``key_value``.
        is_video: Its arrays are videos, and are written as moving images.
        fps: Frames of a video a second.

    Raises:
        ValueError: The options contradict each other.
    """

    def __init__(
        self,
        data: object,
        is_image: bool = False,
        build_html: bool = False,
        build_label: Label | None = None,
        view_distribute: bool = False,
        *,
        is_video: bool = False,
        fps: float = 8,
    ) -> None:
        if is_image and is_video:
            raise ValueError("data are images or videos: leave out is_image or is_video")
        if build_html and not (is_image or is_video):
            raise ValueError("a page shows images: build_html needs is_image or is_video")
        if build_html != (build_label is not None):
            raise ValueError("a page needs labels, and labels a page: give both build_html and build_label, or neither")
        if view_distribute and (is_image or is_video):
            raise ValueError("images are not counted: leave out view_distribute")
        if not 0 < fps <= 1000:
            raise ValueError(f"fps is {fps}, must be above 0 and at most 1000")
        self.data = data
        self.is_image = is_image
        self.build_html = build_html
        self.build_label = build_label
        self.view_distribute = view_distribute
        self.is_video = is_video
        self.fps = fps

    def copied(self) -> ProbeData:
        """Return the same of a copy of the value.

        Raises:
            ValueError: Something in it cannot be shown; the message says where.
        """
        return ProbeData(
            _copied(self.data, "data"),
            self.is_image,
            self.build_html,
            self.build_label,
            self.view_distribute,
            is_video=self.is_video,
            fps=self.fps,
        )

    def counts(self) -> Counter[str]:
        """Return how often each value occurs.

        Raises:
            ValueError: There are arrays in it, or what cannot be shown.
        """
        return Counter(_counted(_copied(self.data, "data"), "data"))

    def to_log(
        self,
        prefix: str | None = None,
        *,
        rank: int = 0,
        image_format: Literal["jpg", "png"] = "jpg",
        video_format: Literal["webp", "gif"] = "webp",
    ) -> Logged:
        """Return what JSON can hold of the value, and write its arrays to files.

        The file of an array is ``PREFIX_probe_RANK_40x40x3.npy``, that of an image ends with ``.jpg``; those in a list, in a
        mapping and of several images in an array lie below ``PREFIX/``, by number or key.

        Args:
            prefix: Path or URI that the names of files begin with.
            rank: Whose value it is.
            image_format: Of images; those with transparency are png in any case.
            video_format: Of videos.

        Returns:
            The value, a number that is not finite as text; the path of its only file; or of several ``{"ori_file": paths}`` in
            the structure of the value, with the path of the page as ``html``.

        Raises:
            ValueError: The value cannot be shown, images have another form, labels are not those of the images, or there are
                arrays and no prefix.
            FileError: A file could not be written.
            MissingDependencyError: Pillow is not installed, and there are images.
        """
        if image_format not in ("jpg", "png") or video_format not in ("webp", "gif"):
            raise ValueError(f"{image_format=} must be jpg or png, and {video_format=} webp or gif")
        value = _copied(self.data, "data")
        if not any(_is_array(each) for each in _leaves(value)):
            if self.is_image or self.is_video:
                raise ValueError("there is no array in what shall be shown as images")
            return _plain(value)
        if prefix is None:
            raise ValueError("arrays are written to files: give a prefix for their names")
        if self.build_html:
            _check_labels(value, self.build_label)
        written = _Writer(self, rank, image_format, video_format).write(value, prefix)
        if self.build_html:
            page = f"{prefix}_probe_{rank}.html"
            put(_page(written, self.build_label, page).encode(), page)
            return {"ori_file": written, "html": page}
        return written if isinstance(written, str) else {"ori_file": written}


class _Writer:
    """Writes the arrays of a value.

    Args:
        probe: How they are shown.
        rank: Whose they are.
        image_format: Of images.
        video_format: Of videos.
    """

    def __init__(self, probe: ProbeData, rank: int, image_format: str, video_format: str) -> None:
        self._probe = probe
        self._rank = rank
        self._image_format = image_format
        self._video_format = video_format

    def write(self, value: Value, prefix: str) -> Logged:
        """Write the arrays; return the value with paths in their places."""
        if isinstance(value, list):
            return [self.write(each, f"{prefix}/{number}") for number, each in enumerate(value)]
        if isinstance(value, dict):
            names = file_names(value)
            return {key: self.write(each, f"{prefix}/{names[key]}") for key, each in value.items()}
        if not _is_array(value):
            return _plain(value)
        whole, images = 3 if self._probe.is_video else 2, self._probe.is_image or self._probe.is_video
        colored = value.ndim > whole and value.shape[-1] in _CHANNELS
        if images and value.ndim == whole + colored + 1:
            return [self.write(each, f"{prefix}/{number}") for number, each in enumerate(value)]
        content, suffix = self._encoded(value, colored) if images else (_npy(value), "npy")
        path = f"{prefix}_probe_{self._rank}_{'x'.join(map(str, value.shape)) or 'scalar'}.{suffix}"
        put(content, path)
        return path

    def _encoded(self, array: Array, colored: bool) -> tuple[bytes, str]:
        """Return the content of an image or video, and how its name ends."""
        pillow = require("PIL.Image", extra="train", purpose="writing images")
        kind, whole = ("video", 3) if self._probe.is_video else ("image", 2)
        if array.ndim != whole + colored or not array.size:
            raise ValueError(
                f"this is no {kind}, [{'frames, ' * (whole - 2)}height, width, 1, 3 or 4]: {list(array.shape)}"
            )
        pixels = _pixels(array)
        pixels = pixels[..., 0] if colored and pixels.shape[-1] == 1 else pixels
        buffer = BytesIO()
        if self._probe.is_video:
            first, *rest = [pillow.fromarray(frame) for frame in pixels]
            pause = round(1000 / self._probe.fps)
            lossless = {"lossless": True} if self._video_format == "webp" else {}
            first.save(
                buffer, self._video_format, save_all=True, append_images=rest, duration=pause, loop=0, **lossless
            )
            return buffer.getvalue(), self._video_format
        suffix = "png" if colored and pixels.shape[-1:] == (4,) else self._image_format
        pillow.fromarray(pixels).save(buffer, {"jpg": "JPEG", "png": "PNG"}[suffix])
        return buffer.getvalue(), suffix


def _npy(array: Array) -> bytes:
    numpy = require("numpy", extra="train", purpose=_PURPOSE)
    buffer = BytesIO()
    numpy.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _pixels(array: Array) -> Array:
    """Return an image's values as uint8."""
    least, most = (float(array.min()), float(array.max()))
    limit = 255 if array.dtype.kind in "iu" else 1
    if array.dtype.kind not in "biuf" or not (least >= 0 and most <= limit):
        raise ValueError(
            f"the values of an image are whole numbers from 0 to 255, or floats in [0, 1]; got {array.dtype} from {least:g} "
            f"to {most:g}"
        )
    numpy = require("numpy", extra="train", purpose=_PURPOSE)
    found: Array = numpy.rint(array * (255 if limit == 1 else 1.0)).astype("uint8")
    return found


def _copied(value: object, where: str) -> Value:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_quantized:
            raise ValueError(f"{where} is a tensor that is not dense")
        local = value.detach().to("cpu", copy=True).resolve_conj().resolve_neg()
        # numpy knows no bfloat16 and no float8.
        known = local if local.dtype.itemsize > 2 or not local.is_floating_point() else local.float()
        return known.item() if known.ndim == 0 and not known.is_complex() else known.numpy()
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str | int | float)]:
            raise ValueError(f"{where} has the key {wrong[0]!r}: keys are texts or numbers")
        copied = {str(key): _copied(each, f"{where}[{key!r}]") for key, each in value.items()}
        if len(copied) < len(value):
            raise ValueError(f"{where} has keys that are the same as texts")
        return copied
    if isinstance(value, list | tuple):
        return [_copied(each, f"{where}[{number}]") for number, each in enumerate(value)]
    if hasattr(value, "__array_interface__"):  # arrays and single numbers of numpy's
        array: Array = require("numpy", extra="train", purpose=_PURPOSE).array(value)
        if array.dtype.kind in "biufc":
            return array.item() if array.ndim == 0 and array.dtype.kind != "c" else array
    raise ValueError(
        f"{where} is {type(value).__name__}: text, numbers, arrays and lists and mappings of them can be shown"
    )


def _is_array(value: object) -> TypeIs[Array]:
    return hasattr(value, "__array_interface__")


def _leaves(value: Value) -> Iterator[Value]:
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _plain(value: Value) -> Logged:
    """Return a value without arrays as JSON can hold it."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if _is_array(value):
        raise AssertionError("arrays are written to files")
    return value


def _counted(value: Value, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _counted(each, f"{where}[{number}]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (f"{key}_{each}" for each in _counted(inner, f"{where}[{key!r}]"))
    elif _is_array(value):
        raise ValueError(f"{where} is an array: what is counted are texts and numbers; give its values as a list")
    else:
        yield str(value)


def _check_labels(value: Value, label: Label | None) -> None:
    if isinstance(label, list) and not (
        not isinstance(value, dict) and isinstance(value, Sized) and len(value) == len(label)
    ):
        raise ValueError(f"there are {len(label)} labels, and not as many images in a list or an array")
    if isinstance(label, dict) and not (isinstance(value, dict) and value.keys() == label.keys()):
        raise ValueError(f"labels are called {', '.join(label)}, and not so the images of a mapping")


def _page(written: Logged, label: Label | None, page: str) -> str:
    """Return a page that shows images with their labels; it finds them when all is moved together."""
    below = page.rpartition("/")[0] + "/" if "/" in page else ""
    rows = []
    for path, text in _labelled(written, label):
        source = html.escape(quote(path.removeprefix(below)))
        rows.append(f'<figure><img src="{source}" alt=""><figcaption>{html.escape(text)}</figcaption></figure>')
    return '<!doctype html>\n<meta charset="utf-8">\n<title>probe</title>\n' + "\n".join(rows) + "\n"


def _labelled(written: Logged, label: object) -> Iterator[tuple[str, str]]:
    if isinstance(written, dict):
        for key, each in written.items():
            yield from _labelled(each, label[key] if isinstance(label, dict) else label)
    elif isinstance(written, list):
        for number, each in enumerate(written):
            yield from _labelled(each, label[number] if isinstance(label, list) else label)
    else:
        yield str(written), str(label)


def file_names(keys: Mapping[str, object]) -> dict[str, str]:
    """Return a name for the files of each key, in which no key leads to another directory or to another key's file."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for key in keys:
        safe = plain = re.sub(r"[^\w.-]+", "-", key).strip("-.") or "probe"
        number = 2
        while safe.lower() in taken:
            safe, number = f"{plain}-{number}", number + 1
        taken.add(safe.lower())
        found[key] = safe
    return found
