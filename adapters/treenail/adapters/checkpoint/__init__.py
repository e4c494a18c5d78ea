"""Checkpoints without pickle: a state tree as safetensors and JSON, under a manifest with sizes and checksums."""

from treenail.adapters.checkpoint.consolidated import consolidate, consolidate_checkpoint
from treenail.adapters.checkpoint.errors import UnsuitableError
from treenail.adapters.checkpoint.files import persist
from treenail.adapters.checkpoint.published import publish
from treenail.adapters.checkpoint.sharded import (
    ShardSnapshot,
    read_shards,
    read_whole,
    snapshot_shards,
    write_shards,
)
from treenail.adapters.checkpoint.spread import RankCheckpointer, Resumed
from treenail.adapters.checkpoint.store import CheckpointStore, snapshot
from treenail.adapters.checkpoint.tree import Snapshot, freeze, thaw

__all__ = [
    "CheckpointStore",
    "RankCheckpointer",
    "Resumed",
    "ShardSnapshot",
    "Snapshot",
    "UnsuitableError",
    "consolidate",
    "consolidate_checkpoint",
    "freeze",
    "persist",
    "publish",
    "read_shards",
    "read_whole",
    "snapshot",
    "snapshot_shards",
    "thaw",
    "write_shards",
]
