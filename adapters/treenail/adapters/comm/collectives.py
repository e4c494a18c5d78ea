"""A communicator over any transport: agreement first, small tensors within it, then the data of large ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import torch
from torch import Tensor

from treenail.adapters.comm.arguments import check_rank, check_tag, items, tensors_of_ranks
from treenail.adapters.comm.envelope import (
    Call,
    Envelope,
    Form,
    ObjectMessageError,
    form_of,
    object_in,
    pack,
    require_agreement,
    require_fit,
    settled,
)
from treenail.adapters.comm.operations import check_reducible, combine
from treenail.adapters.comm.transport import Transport
from treenail.kernel import CommunicationError

_HEADER = 512
"""Bytes that an envelope may need besides the tensors in it; more only makes it two messages."""

_CHUNK = 2**22
"""Elements that an operation other than a sum gathers from each rank at a time."""


class Collectives:
    """A `Communicator`: every collective is first agreed upon in one small message of every rank to every rank.

    The message says what the rank is about to do, with which shapes, or why it cannot; small tensors travel in it.

    Args:
        transport: What moves the data.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._number = 0
        self._groups = 0

    @property
    def rank(self) -> int:
        """This process's number, 0 <= rank < world_size."""
        return self._transport.rank

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return self._transport.world_size

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self._agree("barrier")

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        """Return the element-wise sum, mean, product, min, max, band, bor or bxor over ranks; bit for bit equal on all.

        Args:
            tensor: Of the same shape and dtype on every rank.
            op: The operation. A mean is the sum divided by the number of ranks; min and max keep NaN.

        Raises:
            CommunicationError: The ranks disagree, the operation does not exist for this dtype, or a rank is gone.
        """
        tensor = settled(tensor)
        envelopes = self._agree("all_reduce", (op,), lambda: [check_reducible(tensor, op)])
        require_fit(_calls(envelopes), [envelope.call.forms[0] for envelope in envelopes])
        parts = [part for envelope in envelopes if (part := envelope.tensor()) is not None]
        if len(parts) == self.world_size:
            result = combine(parts, op).to(tensor.device)
        else:
            result = self._reduce_large(tensor, op, envelopes)
        return result.div_(self.world_size) if op == "mean" else result

    def _reduce_large(self, tensor: Tensor, op: str, envelopes: Sequence[Envelope]) -> Tensor:
        device = self._route(envelopes, tensor.device)
        mine = _plain(tensor, device)
        if op in {"sum", "mean"}:
            # A complex number is two real ones to a sum.
            parts = torch.view_as_real(mine) if mine.is_complex() else mine
            if self._transport.sums(parts):
                result = mine.clone()
                self._transport.all_reduce(torch.view_as_real(result) if mine.is_complex() else result)
                return result.to(tensor.device)
        # Other operations drop NaN or do not exist in one backend or another: every rank does them in the order of ranks.
        flat = mine.reshape(-1)
        result = torch.empty_like(flat)
        for start in range(0, len(flat), _CHUNK):
            chunk = flat[start : start + _CHUNK]
            incoming = [chunk if rank == self.rank else torch.empty_like(chunk) for rank in range(self.world_size)]
            others = [None if rank == self.rank else each for rank, each in enumerate(incoming)]
            self._transport.transfer([None if each is None else chunk for each in others], others)
            result[start : start + _CHUNK] = combine(incoming, op)
        return result.reshape(mine.shape).to(tensor.device)

    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        """Return the tensor of rank `source` on every rank.

        Args:
            tensor: What to send; elsewhere None, or a tensor of the same shape and dtype.
            source: Who sends.

        Raises:
            CommunicationError: The ranks disagree, there is no such rank, or a rank is gone.
        """
        tensor = settled(tensor)

        def bring() -> list[Tensor]:
            check_rank(source, self.world_size)
            if tensor is None and self.rank == source:
                raise CommunicationError("the rank that sends gave None, must give a tensor")
            return [] if tensor is None else [tensor]

        envelopes = self._agree("broadcast", (source,), bring, inline=self.rank == source)
        sent = envelopes[source]
        require_fit(_calls(envelopes), [form for envelope in envelopes for form in envelope.call.forms])
        target = torch.device("cpu") if tensor is None else tensor.device
        if (content := sent.tensor()) is not None:
            return content.to(target)
        device = self._route(envelopes, target)
        memory = sent.call.forms[0].new(device)
        if tensor is not None and self.rank == source:
            memory.copy_(tensor.detach())
        self._transport.broadcast(memory, source)
        return memory.to(target)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every rank's tensor in rank order; views of one tensor where they have a first dimension.

        Args:
            tensor: Of the same dtype and shape on every rank, but for the first dimension.

        Raises:
            CommunicationError: The ranks disagree, or a rank is gone.
        """
        tensor = settled(tensor)
        envelopes = self._agree("all_gather", (), lambda: [tensor])
        require_fit(_calls(envelopes), [envelope.call.forms[0].rows for envelope in envelopes])
        return self._collect(tensor, envelopes, range(self.world_size))

    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        """Return every rank's tensor in rank order on rank `destination`, None elsewhere.

        Args:
            tensor: Of the same dtype and shape on every rank, but for the first dimension.
            destination: Who receives; its tensors are views of one where they have a first dimension.

        Raises:
            CommunicationError: The ranks disagree, there is no such rank, or a rank is gone.
        """
        tensor = settled(tensor)

        def bring() -> list[Tensor]:
            check_rank(destination, self.world_size)
            return [tensor]

        envelopes = self._agree("gather", (destination,), bring)
        require_fit(_calls(envelopes), [envelope.call.forms[0].rows for envelope in envelopes])
        parts = self._collect(tensor, envelopes, [destination])
        return parts if self.rank == destination else None

    def _collect(self, tensor: Tensor, envelopes: Sequence[Envelope], receivers: Sequence[int]) -> list[Tensor]:
        """Move every rank's tensor to the receivers; returns them there."""
        receives = self.rank in receivers
        forms = [envelope.call.forms[0] for envelope in envelopes]
        large = [not form.empty and not envelope.call.sizes for form, envelope in zip(forms, envelopes, strict=True)]
        device = self._route(envelopes, tensor.device)
        parts = _adjacent(forms, device) if receives else []
        for rank, part in enumerate(parts):
            if rank == self.rank:
                part.copy_(tensor.detach())
            elif not large[rank] and (content := envelopes[rank].tensor()) is not None:
                part.copy_(content)
        if any(large):
            others = [rank for rank in range(self.world_size) if rank != self.rank]
            mine = _plain(tensor, device) if large[self.rank] else None
            outgoing = [mine if rank in others and rank in receivers else None for rank in range(self.world_size)]
            incoming = [
                parts[rank] if receives and rank in others and large[rank] else None for rank in range(self.world_size)
            ]
            self._transport.transfer(outgoing, incoming)
        return [part.to(tensor.device) for part in parts]

    def scatter(self, tensors: Iterable[Tensor] | None, source: int = 0) -> Tensor:
        """Return this rank's one of the tensors of rank `source`.

        Args:
            tensors: One for each rank, of any shapes and dtypes; None where they are not sent.
            source: Who sends.

        Raises:
            CommunicationError: The ranks disagree, there is no such rank, not one tensor for each rank, or a rank is gone.
        """
        given: list[Tensor] = []

        def bring() -> list[Tensor]:
            check_rank(source, self.world_size)
            if self.rank == source:
                given.extend(tensors_of_ranks(tensors, self.world_size))
            elif tensors is not None:
                raise CommunicationError(f"scatter from rank {source} was given tensors here", mend="give None")
            return given

        envelopes = self._agree("scatter", (source,), bring)
        sent = envelopes[source].call
        if not sent.sizes and not all(form.empty for form in sent.forms):
            outgoing: list[Tensor | None] = [None] * self.world_size
            incoming: list[Tensor | None] = [None] * self.world_size
            if given:
                outgoing = [_plain(each, "cpu") if each.numel() else None for each in given]
                outgoing[self.rank] = None
            elif not sent.forms[self.rank].empty:
                incoming[source] = sent.forms[self.rank].new()
            self._transport.transfer(outgoing, incoming)
            if (received := incoming[source]) is not None:
                return received
        if given:
            return given[self.rank].detach().clone(memory_format=torch.contiguous_format)
        content = envelopes[source].tensor(self.rank)
        if content is None:
            raise AssertionError("what was not received came with the envelope")
        return content

    def all_to_all(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Send the i-th tensor to rank i; return what the ranks sent here, in rank order.

        Args:
            tensors: One for each rank, of any shapes and dtypes, on one device, which is that of the result.

        Raises:
            CommunicationError: Not one tensor for each rank, the ranks disagree, or a rank is gone.
        """
        given: list[Tensor] = []

        def bring() -> list[Tensor]:
            given.extend(tensors_of_ranks(tensors, self.world_size))
            return given

        envelopes = self._agree("all_to_all", (), bring)
        device = self._route(envelopes, given[0].device)
        outgoing: list[Tensor | None] = [None] * self.world_size
        incoming: list[Tensor | None] = [None] * self.world_size
        received: list[Tensor] = []
        for rank, envelope in enumerate(envelopes):
            form = envelope.call.forms[self.rank]
            if rank == self.rank:
                received.append(given[rank].detach().clone(memory_format=torch.contiguous_format))
                continue
            if not envelopes[self.rank].call.sizes and given[rank].numel():
                outgoing[rank] = _plain(given[rank], device)
            if (content := envelope.tensor(self.rank)) is not None:
                received.append(content)
            else:
                incoming[rank] = form.new(device)
                received.append(incoming[rank])  # type: ignore[arg-type]  # it was made in the line above
        if any(not form.empty and not envelope.call.sizes for envelope in envelopes for form in envelope.call.forms):
            self._transport.transfer(outgoing, incoming)
        return [part.to(given[0].device) for part in received]

    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        """Begin to send to another rank, through the host's memory; the tensor may be changed at once.

        Args:
            tensor: What to send.
            destination: To whom.
            tag: 0 … 2^20-1; messages of one tag arrive in the order in which they were sent.

        Returns:
            Waits until the message is on its way; it must be called, since until then the message is kept.

        Raises:
            CommunicationError: There is no such rank or tag, or the tensor cannot be sent.
        """
        check_rank(destination, self.world_size)
        check_tag(tag)
        tensor = settled(tensor)
        form = form_of(tensor)
        size = tensor.element_size() * tensor.numel()
        content = pack(Call("send", 0, (), (form,), (size,)), [tensor.detach().cpu()])
        return self._transport.start_send(content, destination, tag)

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        """Begin to receive from another rank.

        Args:
            source: From whom.
            tag: What it sends with.

        Returns:
            Waits for the tensor and returns it, on the CPU.

        Raises:
            CommunicationError: There is no such rank or tag; or, when waiting, the rank is gone, sends nothing in time or sends
                an object.
        """
        check_rank(source, self.world_size)
        check_tag(tag)
        wait = cache(self._transport.start_receive(source, tag))  # who waits again is given the same

        def receive() -> Tensor:
            content = Envelope(wait()).tensor()
            if content is None:
                raise AssertionError("a message carries its tensor")
            if (sealed := object_in(content)) is not None:
                raise ObjectMessageError(sealed, source)
            return content

        return receive

    def group(self, ranks: Iterable[int]) -> Collectives | None:
        """Return a communicator of some of the ranks, numbered in the given order; None where this rank is not one.

        Args:
            ranks: The same on every rank of this communicator, each of which calls this.

        Raises:
            CommunicationError: The ranks disagree, a rank does not exist or comes twice, or there is none.
        """
        members: list[int] = []

        def bring() -> list[Tensor]:
            members.extend(items(ranks, "ranks"))
            for rank in members:
                check_rank(rank, self.world_size)
            if not members or len(set(members)) < len(members):
                raise CommunicationError(f"no group has the ranks {members}", mend="name each at most once, and one")
            return []

        self._agree("group", members, bring)
        self._groups += 1
        transport = self._transport.group(members, self._groups)
        return None if transport is None else Collectives(transport)

    def abort(self, reason: str) -> None:
        """Make every other rank's collectives raise a `CommunicationError` with the reason, those under way, too."""
        self._transport.abort(f"rank {self.rank}: {reason}")

    # What all collectives begin with

    def _agree(
        self,
        name: str,
        agreed: Sequence[str | int] = (),
        bring: Callable[[], list[Tensor]] = list,
        *,
        inline: bool = True,
    ) -> list[Envelope]:
        """Tell the others what this rank is about to do, and hear it from them.

        Args:
            name: The collective.
            agreed: What must be equal on all ranks; looked at after `bring`.
            bring: Checks the arguments, those that must be equal, too, and returns the tensors that this rank brings.
            inline: Whether their contents may travel at once.

        Raises:
            CommunicationError: They do not do the same, one cannot, or one is gone.
        """
        number, self._number = self._number, self._number + 1
        envelope = self._prepare(name, number, agreed, bring, inline=inline)
        doing = f"collective {number} ({name})"
        envelopes = [Envelope(each) for each in self._transport.exchange(envelope, doing)]
        require_agreement(_calls(envelopes))
        return envelopes

    def _prepare(
        self, name: str, number: int, agreed: Sequence[str | int], bring: Callable[[], list[Tensor]], *, inline: bool
    ) -> bytearray:
        try:
            tensors = bring()
            forms = tuple(form_of(tensor) for tensor in tensors)
            sizes = tuple(tensor.element_size() * tensor.numel() for tensor in tensors)
            device = tensors[0].device.type if tensors else "cpu"
            if not inline or sum(sizes) > self._transport.inline - _HEADER - 24 * len(sizes):
                return pack(Call(name, number, tuple(agreed), forms, (), device))
            return pack(
                Call(name, number, tuple(agreed), forms, sizes, device), [tensor.detach().cpu() for tensor in tensors]
            )
        except CommunicationError as error:  # the others wait for this rank's word
            return pack(Call(name, number, refusal=str(error)))
        except Exception as error:
            return pack(Call(name, number, refusal=f"{type(error).__name__}: {error}"))

    def _route(self, envelopes: Sequence[Envelope], own: torch.device) -> torch.device:
        """Return the device from which tensors are moved: this rank's where all have one of its type, else the CPU."""
        kinds = {envelope.call.device for envelope in envelopes}
        return own if kinds == {own.type} and self._transport.native(own.type) else torch.device("cpu")


def _calls(envelopes: Sequence[Envelope]) -> list[Call]:
    return [envelope.call for envelope in envelopes]


def _plain(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a contiguous tensor of the same values on a device, without a copy where it is one."""
    return tensor.detach().resolve_conj().resolve_neg().to(device).contiguous()


def _adjacent(forms: Sequence[Form], device: torch.device) -> list[Tensor]:
    """Return memory for tensors that differ in their first dimension only, one behind the other in one tensor."""
    if not forms[0].shape:
        memory = Form(forms[0].dtype, (len(forms),)).new(device)
        return list(memory.unbind())
    rows = [form.shape[0] for form in forms]
    memory = Form(forms[0].dtype, (sum(rows), *forms[0].shape[1:])).new(device)
    return list(torch.split(memory, rows))
