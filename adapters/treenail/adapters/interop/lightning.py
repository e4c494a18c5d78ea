"""Samplers in Lightning's Trainer; needs the extra `interop`."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from treenail.adapters.sampling import Shard
from treenail.contracts import BatchSampler, SamplerShard
from treenail.kernel import Sampler


class SamplerCallback(Callback):
    """Keeps a sampler's place in Lightning's checkpoints, so that `Trainer.fit` resumes with the very next batch.

    What was trained on counts, not what loader workers have read ahead; and the state holds neither the number of workers
    nor that of processes, so that both may change. With more than one process, make the loader in `train_dataloader()`,
    where the process group is known, give it ``Shard(sampler)``, and set ``use_distributed_sampler=False``.

    Args:
        sampler: What the loader draws from, itself or through a `Shard`, as its ``sampler`` or its ``batch_sampler``.
    """

    def __init__(self, sampler: Sampler | BatchSampler) -> None:
        self._sampler = sampler
        self._shard: SamplerShard[int] | SamplerShard[list[int]] | None = None
        self._batch_size = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how the loader draws from the sampler.

        Raises:
            ValueError: It does not, or every process would draw everything.
        """
        loader = trainer.train_dataloader
        drawn = (loader.sampler, loader.batch_sampler) if isinstance(loader, DataLoader) else ()
        shards = [one for one in drawn if isinstance(one, Shard) and one.sampler is self._sampler]
        if not isinstance(loader, DataLoader) or (not shards and not any(one is self._sampler for one in drawn)):
            raise ValueError(
                f"the training loader does not draw from the {type(self._sampler).__name__} of the SamplerCallback; give "
                "it to one DataLoader, and set Trainer(use_distributed_sampler=False), which would replace it"
            )
        world_size = shards[0].world_size if shards else 1
        if world_size != trainer.world_size:
            raise ValueError(
                f"the training loader draws for a world of {world_size}, and there are {trainer.world_size} processes; "
                "give it Shard(sampler), made in train_dataloader(), where the processes are known"
            )
        self._shard = shards[0] if shards else Shard(self._sampler, 0, 1)
        self._batch_size = loader.batch_size or 1  # without one, the sampler gives whole batches

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go to the epoch; Lightning does so with a loader's sampler, but not with its batch sampler."""
        self._sampler.set_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Record that every process consumed a batch; Lightning calls ModelCheckpoint after all other callbacks."""
        assert self._shard is not None  # since on_train_start
        self._shard.advance(self._batch_size)

    def state_dict(self) -> dict[str, object]:
        """Return the sampler's state."""
        return self._sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands; at the end of an epoch, to the start of the next.

        Raises:
            StateError: The state is of another order.
        """
        self._sampler.load_state_dict(state_dict)
        if self._sampler.cursor == len(self._sampler):
            # Lightning makes the loader's iterator before it calls set_epoch, and workers begin to read at once.
            self._sampler.set_epoch(self._sampler.epoch + 1)
