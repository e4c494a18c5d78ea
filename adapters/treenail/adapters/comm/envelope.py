"""What ranks tell each other before a collective moves data, so that a mistake is an error on every rank and not a hang."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from msgspec import Struct, msgpack
from torch import Tensor

from treenail.adapters.comm import telling
from treenail.kernel import CommunicationError

T = TypeVar("T")

Shape = tuple[int, ...]

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    )
}
"""What can be sent, by name."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Form(Struct, frozen=True, array_like=True):
    """Of a tensor, what a receiver must know: the name of its dtype, and its shape."""

    dtype: str
    shape: Shape

    @property
    def empty(self) -> bool:
        """Whether it has no elements, so that nothing need be sent."""
        return 0 in self.shape

    @property
    def rows(self) -> tuple[str, int, Shape]:
        """What tensors have in common that differ in their first dimension only."""
        return self.dtype, len(self.shape), self.shape[1:]

    def new(self, device: torch.device | str = "cpu") -> Tensor:
        """Return memory for such a tensor."""
        return torch.empty(self.shape, dtype=DTYPES[self.dtype], device=device)

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Call(Struct, frozen=True, array_like=True):
    """What a rank is about to do.

    Args:
        name: The collective.
        number: How many collectives of this communicator were begun before.
        agreed: What must be equal on all ranks besides the name: the operation, the rank that sends or receives.
        forms: Of the tensors that this rank brings.
        sizes: Bytes of each tensor whose content follows in the envelope; none where it travels by itself.
        device: Type of the device on which this rank's tensors lie; that of the CPU where it brings none.
        refusal: Why this rank cannot take part.
    """

    name: str
    number: int
    agreed: tuple[str | int, ...] = ()
    forms: tuple[Form, ...] = ()
    sizes: tuple[int, ...] = ()
    device: str = "cpu"
    refusal: str | None = None

    def __str__(self) -> str:
        what = ", ".join([*map(str, self.forms[:3]), *(["…"] if len(self.forms) > 3 else []), *map(str, self.agreed)])
        return f"{self.name}({what})"


_PLAIN = (Tensor, torch.nn.Parameter)
_ENCODER = msgpack.Encoder()
_DECODER = msgpack.Decoder(Call)
_START = 12


def form_of(tensor: object) -> Form:
    """Return the form of a tensor that can be sent.

    Raises:
        CommunicationError: It is none, or of a kind that cannot be sent.
    """
    if not isinstance(tensor, Tensor):
        raise CommunicationError(f"a {type(tensor).__name__} is no tensor", mend="send other values as objects")
    if type(tensor) not in _PLAIN or tensor.layout is not torch.strided or tensor.is_quantized:
        kind = f"{type(tensor).__name__} of layout {tensor.layout}"
        raise CommunicationError(
            f"a {kind} cannot be sent", mend="make it a plain tensor first (full_tensor, to_dense)"
        )
    if tensor.device.type == "meta":
        raise CommunicationError("a tensor on the meta device holds nothing that could be sent")
    if tensor.dtype not in _NAMES:
        raise CommunicationError(
            f"tensors of {tensor.dtype} cannot be sent", mend="send another dtype, or its bytes by view"
        )
    return Form(_NAMES[tensor.dtype], tuple(tensor.shape))


def settled(tensor: T) -> T:
    """Return a tensor whose content is there: the result of a collective of torch's may still be under way (DTensor's are)."""
    if type(tensor).__name__ == "AsyncCollectiveTensor":
        waited: T = tensor.wait()  # type: ignore[attr-defined]  # the class is torch's own, and not public
        return waited
    return tensor


OBJECT = torch.frombuffer(bytearray(b"treenail object\0"), dtype=torch.uint8)
"""What the message of an object begins with, which is uint8[bytes] like many a tensor."""


class ObjectMessageError(CommunicationError):
    """An object came where a tensor was to be received.

    Args:
        content: The object, packed.
        source: Who sent it.
    """

    def __init__(self, content: Tensor, source: int) -> None:
        super().__init__(f"rank {source} sent an object, no tensor", mend="receive it by recv_object, or send a tensor")
        self.content = content


def object_in(message: Tensor) -> Tensor | None:
    """Return the packed object in a message, uint8[bytes]; None if it is a tensor's."""
    marked = message.dtype is torch.uint8 and message.dim() == 1 and torch.equal(message[: len(OBJECT)], OBJECT)
    return message[len(OBJECT) :] if marked else None


def flat_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor's content as uint8[bytes], without a copy where it is contiguous."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    if flat.stride() != (1,):  # a column is flat as it is, and so is one number out of a row
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def pack(call: Call, tensors: Sequence[Tensor] = ()) -> bytearray:
    """Return an envelope: its length in 8 bytes, that of the call in 4, the call, and the tensors' contents."""
    header = _ENCODER.encode(call)
    flat = [flat_bytes(tensor) for tensor in tensors]
    envelope = bytearray(_START + len(header) + sum(map(len, flat)))
    envelope[:8] = len(envelope).to_bytes(8, "little")
    envelope[8:_START] = len(header).to_bytes(4, "little")
    start = _START + len(header)
    envelope[_START:start] = header
    for content in flat:
        if len(content):
            memory = torch.frombuffer(envelope, dtype=torch.uint8, offset=start, count=len(content))
            memory.copy_(content)
            start += len(content)
    return envelope


class Envelope:
    """An envelope that was received.

    Args:
        content: What `pack` returned.
    """

    def __init__(self, content: bytearray) -> None:
        end = _START + int.from_bytes(content[8:_START], "little")
        self.call = _DECODER.decode(memoryview(content)[_START:end])
        self._content = content
        self._start = end

    def tensor(self, place: int = 0) -> Tensor | None:
        """Return the tensor at a place of the call, new memory on the CPU; None if it travels by itself."""
        form = self.call.forms[place]
        if form.empty:
            return form.new()
        if not self.call.sizes:
            return None
        start, size = self._start + sum(self.call.sizes[:place]), self.call.sizes[place]
        held = torch.frombuffer(self._content, dtype=torch.uint8, offset=start, count=size)
        return held.clone().view(DTYPES[form.dtype]).reshape(form.shape)


def length_of(start: bytearray) -> int:
    """Return the length of an envelope, of which at least 8 bytes are here."""
    return int.from_bytes(start[:8], "little")


def require_agreement(calls: Sequence[Call]) -> None:
    """Check that all ranks do the same, and can.

    Raises:
        CommunicationError: They do not; the message says which rank does what.
    """
    refusals = {rank: call.refusal for rank, call in enumerate(calls) if call.refusal is not None}
    if refusals:
        raise CommunicationError(
            f"{_name(calls)} was refused by {telling.of_ranks(refusals)}",
            mend="no data was moved; the ranks can go on",
        )
    numbered = len({call.number for call in calls}) > 1
    if numbered or len({(call.name, call.agreed) for call in calls}) > 1:
        raise _disagreement(
            calls, [f"{call}, its collective {call.number}" if numbered else str(call) for call in calls]
        )


def require_fit(calls: Sequence[Call], kinds: Iterable[object]) -> None:
    """Check that what ranks bring is of one kind.

    Args:
        calls: What each rank does.
        kinds: Of what is brought, whatever must be equal.

    Raises:
        CommunicationError: It is not; the message says what which rank brings.
    """
    if len(set(kinds)) > 1:
        raise _disagreement(calls, list(map(str, calls)))


def _disagreement(calls: Sequence[Call], descriptions: Sequence[str]) -> CommunicationError:
    return CommunicationError(
        f"the ranks disagree in {_name(calls)}: {telling.of_ranks(dict(enumerate(descriptions)))}",
        mend="every rank must call the same collectives in the same order, with tensors that fit",
    )


def _name(calls: Sequence[Call]) -> str:
    names = dict.fromkeys(call.name for call in calls)
    return f"collective {calls[0].number} ({' / '.join(names)})"
