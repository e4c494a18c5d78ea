"""Communicators that break one law each; a comment names the real bug that a mutant repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from treenail.kernel import CommunicationError, Communicator


class Mutant:
    """What mutants change: a communicator that is right."""

    def __init__(self, real: Communicator) -> None:
        self.real = real

    @property
    def rank(self) -> int:
        return self.real.rank

    @property
    def world_size(self) -> int:
        return self.real.world_size

    def barrier(self) -> None:
        self.real.barrier()

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        return self.real.all_reduce(tensor, op)

    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        return self.real.broadcast(tensor, source)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        return self.real.all_gather(tensor)

    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        return self.real.gather(tensor, destination)

    def scatter(self, tensors: Sequence[Tensor] | None, source: int = 0) -> Tensor:
        return self.real.scatter(tensors, source)

    def all_to_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return self.real.all_to_all(tensors)

    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        return self.real.isend(tensor, destination, tag)

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        return self.real.irecv(source, tag)

    def group(self, ranks: Sequence[int]) -> Communicator | None:
        group = self.real.group(ranks)
        return None if group is None else type(self)(group)

    def abort(self, reason: str) -> None:
        self.real.abort(reason)


# Moving


class NumbersRanksFromOne(Mutant):
    @property
    def rank(self) -> int:
        return self.real.rank + 1


class DoesNotWait(Mutant):
    def barrier(self) -> None:
        pass


class IgnoresTheSource(Mutant):
    # a broadcast written for rank 0 only
    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        found = self.real.broadcast(tensor if tensor is not None else torch.zeros(1), source)
        first = self.real.all_gather(found if tensor is None else tensor.detach())[0]
        return first.clone()


class DropsTheLastShard(Mutant):
    # accelerate #952: the gather for metrics dropped a whole batch
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        found = self.real.all_gather(tensor)
        return found[: max(1, len(found) - 1)]


class PadsWithoutTrimming(Mutant):
    # pytorch #23299, Lightning #7773: uneven tensors are padded to the longest, and stay so
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        if not tensor.dim():
            return self.real.all_gather(tensor)
        most = int(self.real.all_reduce(torch.tensor(len(tensor)), "max"))
        return self.real.all_gather(
            torch.cat([tensor.detach(), tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
        )


class LosesTheOrderOfRanks(Mutant):
    # results in the order in which they came
    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        found = self.real.gather(tensor, destination)
        return None if found is None else found[::-1]


class PromotesTheDtype(Mutant):
    # values that travel as float32, whatever they were
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        return [each.float() if each.dtype == torch.bfloat16 else each for each in self.real.all_gather(tensor)]


class LeavesOutTheEmpty(Mutant):
    # ranks without samples
    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        found = self.real.gather(tensor, destination)
        return None if found is None else [each for each in found if each.numel()] or found[:1]


class GathersAnEmptyListElsewhere(Mutant):
    # mmengine's gather: other ranks get [], which is also what nothing was gathered looks like
    def gather(self, tensor: Tensor, destination: int = 0) -> list[Tensor] | None:
        return self.real.gather(tensor, destination) or []


class AssumesContiguousTensors(Mutant):
    # SCEPTER DST-08: send and recv ask for contiguous tensors; here their memory is taken as it lies
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        strides = torch.empty(tensor.shape, device="meta").stride()
        fits = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True)) + 1
        room = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
        return self.real.all_gather(tensor.as_strided(tensor.shape, strides) if fits <= room else tensor)


class ScattersInReverse(Mutant):
    def scatter(self, tensors: Sequence[Tensor] | None, source: int = 0) -> Tensor:
        return self.real.scatter(None if tensors is None else list(tensors)[::-1], source)


class TransposesNothing(Mutant):
    def all_to_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.real.all_to_all(tensors)
        return [tensor.detach().clone() for tensor in tensors]


class ReducesInPlace(Mutant):
    # torch's own way, and mmengine's: the argument is the result
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        found = self.real.all_reduce(tensor, op)
        if op == "sum" and tensor.dim() and all(tensor.stride()):
            tensor.detach().copy_(found)
        return found


class GivesBackTheArgumentInAWorldOfOne(Mutant):
    # mmengine outside of a distributed run: gather is [data]
    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        return [tensor] if self.world_size == 1 else self.real.all_gather(tensor)


class KeepsItsOwnPart(Mutant):
    # a rank's own part is put among the results without a copy
    def all_to_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        found = self.real.all_to_all(tensors)
        found[self.rank] = tensors[self.rank].detach()
        return found


class ReusesItsBuffer(Mutant):
    # results in memory that the next collective receives into
    def __init__(self, real: Communicator) -> None:
        super().__init__(real)
        self.buffers: dict[object, Tensor] = {}

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        return self.held(self.real.all_reduce(tensor, op))

    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        return self.held(self.real.broadcast(tensor, source))

    def held(self, found: Tensor) -> Tensor:
        return self.buffers.setdefault((found.shape, found.dtype), found).copy_(found)


# Reducing


class ForgetsToDivide(Mutant):
    # MPI and gloo know no mean: it is a sum where nobody divides
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        found = self.real.all_reduce(tensor, op)
        return found * self.world_size if op == "mean" else found


class PromotesSums(Mutant):
    # torch.sum of small integers is int64
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        found = self.real.all_reduce(tensor, op)
        small = found.dtype in {torch.uint8, torch.int8, torch.int16, torch.int32}
        return found.long() if op == "sum" and small else found


class LosesNan(Mutant):
    # gloo's min and max pass over a NaN, depending on the order
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        if op not in {"min", "max"} or tensor.is_complex() or not tensor.is_floating_point():
            return self.real.all_reduce(tensor, op)
        worst = float("-inf") if op == "max" else float("inf")
        return self.real.all_reduce(tensor.detach().nan_to_num(worst, float("inf"), float("-inf")), op)


class AddsFromItselfOn(Mutant):
    # a ring whose every rank adds in an order of its own
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        if op != "sum" or not tensor.is_floating_point():
            return self.real.all_reduce(tensor, op)
        parts = self.real.all_gather(tensor)
        return reduce(torch.add, parts[self.rank :] + parts[: self.rank])


class AveragesIntegers(Mutant):
    # mmengine: mean is a sum, then a division, of anything
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        if op == "mean" and not tensor.is_floating_point() and not tensor.is_complex():
            return self.real.all_reduce(tensor.to(torch.float64), op).to(tensor.dtype)
        return self.real.all_reduce(tensor, op)


class TakesUnknownOperationsForSums(Mutant):
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        return self.real.all_reduce(tensor, "sum" if op == "average" else op)


# Messages


class IgnoresTags(Mutant):
    # NCCL's point-to-point messages have no tags
    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        return self.real.isend(tensor, destination, 0)

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        return self.real.irecv(source, 0)


class MatchesMessagesWhenWaitedFor(Mutant):
    # the first that is waited for gets the first message, not the first that was begun
    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        def wait() -> Tensor:
            return self.real.irecv(source, tag)()

        return wait


class SendsAfterTheWait(Mutant):
    # asynchronous sends that keep the caller's memory
    def __init__(self, real: Communicator) -> None:
        super().__init__(real)
        self.kept: list[tuple[Tensor, int, int]] = []

    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        self.kept.append((tensor, destination, tag))
        return lambda: None

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        receive = self.real.irecv(source, tag)

        def wait() -> Tensor:
            self.send()
            return receive()

        return wait

    def send(self) -> None:
        for kept in self.kept:
            self.real.isend(*kept)
        self.kept.clear()


class TakesNegativeRanks(Mutant):
    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        return self.real.isend(tensor, destination % self.world_size, tag)


class ReusesResults(Mutant):
    # a cache by shape
    def __init__(self, real: Communicator) -> None:
        super().__init__(real)
        self.held: dict[object, Tensor] = {}

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        found = self.real.all_reduce(tensor, op)
        return self.held.setdefault((found.shape, found.dtype, op), found).clone()


# Groups


class SortsTheGroup(Mutant):
    # torch's new_group sorts its ranks
    def group(self, ranks: Sequence[int]) -> Communicator | None:
        return super().group(sorted(ranks))


class IsEverybodysGroup(Mutant):
    # torch gives those outside an object that is no group, and is not None
    def group(self, ranks: Sequence[int]) -> Communicator | None:
        return super().group(ranks) or self


class CountsSourcesInTheWorld(Mutant):
    # torch's src and dst are ranks of the world, in a group, too
    members: Sequence[int] | None = None

    def group(self, ranks: Sequence[int]) -> Communicator | None:
        group = super().group(ranks)
        if isinstance(group, CountsSourcesInTheWorld):
            group.members = [self.members[rank] for rank in ranks] if self.members is not None else list(ranks)
        return group

    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        members = range(self.world_size) if self.members is None else self.members
        if source not in members:
            raise CommunicationError(f"rank {source} is not in the group")
        return self.real.broadcast(tensor, members.index(source))


class SendsMessagesInTheWorld(Mutant):
    # the messages of a group and those of the world are the same
    parent: Communicator | None = None
    members: Sequence[int] = ()

    def group(self, ranks: Sequence[int]) -> Communicator | None:
        group = super().group(ranks)
        if isinstance(group, SendsMessagesInTheWorld):
            group.parent, group.members = self, ranks
        return group

    def isend(self, tensor: Tensor, destination: int, tag: int = 0) -> Callable[[], None]:
        if self.parent is None:
            return self.real.isend(tensor, destination, tag)
        return self.parent.isend(tensor, self.members[destination], tag)

    def irecv(self, source: int, tag: int = 0) -> Callable[[], Tensor]:
        if self.parent is None:
            return self.real.irecv(source, tag)
        return self.parent.irecv(self.members[source], tag)


# Mistakes


class TellsOneRankOnly(Mutant):
    # checks of arguments on one rank, while the others go on, or wait
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        try:
            return self.real.all_reduce(tensor, op)
        except CommunicationError:
            if self.rank:
                return tensor
            raise


class BroadcastsWhatFits(Mutant):
    # gloo broadcasts bytes: another shape or dtype of the same size is filled with them
    def broadcast(self, tensor: Tensor | None, source: int = 0) -> Tensor:
        return self.real.broadcast(tensor if self.rank == source else None, source)


class NamesNobody(Mutant):
    # "Connection closed by peer": the rank that made the mistake is not named
    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        try:
            return self.real.all_reduce(tensor, op)
        except CommunicationError as error:
            raise CommunicationError("all_reduce: the ranks do not agree") from error


class IsUnusableAfterwards(Mutant):
    # gloo in torch 2.13 (ANCHORS P12): after an error about uneven tensors the group cannot be used
    broken = False

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        if self.broken:
            raise CommunicationError("these ranks cannot communicate any more")
        try:
            return self.real.all_gather(tensor)
        except CommunicationError:
            self.broken = True
            raise


class KeepsWhatWasRefused(Mutant):
    # data of a refused collective is found in the next one
    left: Tensor | None = None

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        try:
            found = self.real.all_reduce(tensor, op)
        except CommunicationError:
            self.left = torch.ones(1)
            raise
        left, self.left = self.left, None
        return found if left is None else found + left.to(found.dtype)


class BreaksTheWorldWithAGroup(Mutant):
    # NCCL: an error in one group ends the process's others
    def __init__(self, real: Communicator, broken: list[str] | None = None) -> None:
        super().__init__(real)
        self.broken = [] if broken is None else broken

    def group(self, ranks: Sequence[int]) -> Communicator | None:
        group = self.real.group(ranks)
        return None if group is None else BreaksTheWorldWithAGroup(group, self.broken)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        if self.broken:
            raise CommunicationError(self.broken[0])
        return self.real.all_gather(tensor)

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        try:
            return self.real.all_reduce(tensor, op)
        except CommunicationError as error:
            self.broken.append(str(error))
            raise


# Failures


class TellsNobody(Mutant):
    # a rank that raises while the others wait for half an hour
    def abort(self, reason: str) -> None:
        pass


class LosesTheReason(Mutant):
    # "Connection closed by peer" in place of the first error
    def abort(self, reason: str) -> None:
        self.real.abort("the run was ended")
