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
    nor that of processes, so that both may change. An epoch of the sampler ends with Lightning's: with
    ``limit_train_batches`` or ``drop_last`` the next one begins although samples are left. With more than one process, make
    the loader in `train_dataloader()`, where the process group is known, give it ``Shard(sampler)``, and set
    ``use_distributed_sampler=False``.

    Args:
        sampler: What the loader draws from, itself or through a `Shard`, as its ``sampler`` or its ``batch_sampler``; or
            what each process draws, such as a `Shard`.
    """

    def __init__(self, sampler: Sampler | BatchSampler | SamplerShard[int] | SamplerShard[list[int]]) -> None:
        self._sampler = sampler
        self._shard: SamplerShard[int] | SamplerShard[list[int]] | None = None
        self._batch_size = 1
        self._drop_last = False
        self._under_way = False  # whether a batch is
        self._note()

    def _note(self) -> None:
        """Note where the sampler stands: Lightning may call set_epoch with an epoch that is over, to finish it."""
        self._epoch, self._state = self._sampler.epoch, self._sampler.state_dict()

    def _return(self) -> None:
        """Go to where the sampler stood, if Lightning called set_epoch with another epoch."""
        if self._sampler.epoch != self._epoch:
            self._sampler.load_state_dict(self._state)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Go to the epoch of a run; Lightning makes the loader's iterator before it calls set_epoch."""
        if stage == "fit":
            self._sampler.set_epoch(trainer.current_epoch)
            self._note()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how the loader draws from the sampler, and put Lightning's count right.

        Raises:
            ValueError: The loader does not draw from it, or draws for another number of processes.
        """
        self._shard, loader = self._find(trainer)
        self._batch_size = loader.batch_size or 1  # without one, the sampler gives whole batches
        self._drop_last = loader.drop_last
        self._under_way = False
        epochs, loop = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop
        processed: int = epochs.processed  # type: ignore[attr-defined]  # Lightning declares the base class of what it is
        self._sampler.set_epoch(self._epoch + 1)
        endless = self._sampler.epoch == self._epoch  # such an order has no epochs, whose batches could be counted
        self._return()
        # After the last batch, but before the end of the epoch (in validation), Lightning goes on to its end by itself.
        finishing = self._epoch == processed + 1 and loop.batch_progress.is_last_batch
        if not trainer.fit_loop.is_resuming or endless or finishing:
            return
        # With max_steps Lightning counts an epoch as over that it has only stopped in, or runs one that is over again.
        epochs.processed = epochs.completed = self._epoch  # type: ignore[attr-defined]  # as above
        # It counts batches, which are others where the number of processes or the batch size has changed.
        consumed = len(loader) - self._batches_left()
        if not loop.restarted_on_train_batch_end:
            loop.batch_progress.current.completed = consumed
        else:  # Lightning counts the batch under way once more, and resets all counts if that makes an epoch
            loop.batch_progress.current.completed = consumed - 1 if consumed else int(trainer.num_training_batches)
        loop.batch_progress.is_last_batch = False

    def _batches_left(self) -> int:
        """Return how many batches of this epoch the loader still has for this process."""
        assert self._shard is not None  # since on_train_start
        left, size = self._shard.remaining, self._batch_size
        return left // size if self._drop_last else -(-left // size)

    def _find(self, trainer: Trainer) -> tuple[SamplerShard[int] | SamplerShard[list[int]], DataLoader[object]]:
        """Return what the training loader draws, and the loader.

        Raises:
            ValueError: It does not draw from the sampler, or draws for another number of processes.
        """
        loader, given = trainer.train_dataloader, self._sampler
        drawn = (loader.sampler, loader.batch_sampler) if isinstance(loader, DataLoader) else ()
        order = given.sampler if isinstance(given, Shard) else given
        found = [
            one for one in drawn if one is given or one is order or (isinstance(one, Shard) and one.sampler is order)
        ]
        if not isinstance(loader, DataLoader) or not found:
            raise ValueError(
                f"the training loader does not draw from the {type(given).__name__} of the SamplerCallback; give "
                "it to one DataLoader, and set Trainer(use_distributed_sampler=False), which would replace it"
            )
        shard = found[0]
        if not isinstance(shard, SamplerShard):
            shard = Shard(shard, 0, 1)
            mend = "give it Shard(sampler), made in train_dataloader(), where the processes are known"
        else:
            mend = (
                f"make the {type(shard).__name__} where they are known: in train_dataloader(), or after "
                "torch.distributed.init_process_group()"
            )
        if isinstance(shard, Shard) and shard.world_size != trainer.world_size:
            raise ValueError(
                f"the training loader draws for a world of {shard.world_size}, and there are {trainer.world_size} "
                f"processes; {mend}"
            )
        return shard, loader

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go to where the sampler stands; Lightning makes the loader's iterator after this."""
        self._return()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Note that a batch is under way."""
        self._under_way = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Record that every process consumed a batch; Lightning calls ModelCheckpoint after all other callbacks."""
        assert self._shard is not None  # since on_train_start
        self._under_way = False
        self._return()
        self._shard.advance(self._batch_size)
        if trainer.is_last_batch or not self._batches_left():
            # An iteration under way, and what workers read ahead, stay in their epoch.
            self._sampler.set_epoch(self._epoch + 1)
        self._note()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go to the next epoch where the module's on_train_batch_start refused the rest of this one."""
        self._return()
        if self._under_way:
            self._under_way = False
            self._sampler.set_epoch(self._epoch + 1)
            self._note()

    def state_dict(self) -> dict[str, object]:
        """Return the sampler's state: where the next batch stands."""
        return self._state

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Go to where a state stands.

        Raises:
            StateError: The state is of another order.
        """
        self._sampler.load_state_dict(state_dict)
        self._note()
