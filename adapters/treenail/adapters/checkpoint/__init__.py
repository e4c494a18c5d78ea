"""Checkpoints without pickle: a state tree as safetensors and JSON, under a manifest with sizes and checksums."""

from treenail.adapters.checkpoint.files import persist
from treenail.adapters.checkpoint.sharded import (
    ShardSnapshot,
    consolidate,
    read_shards,
    read_whole,
    snapshot_shards,
    stored_names,
    write_shards,
)
from treenail.adapters.checkpoint.store import CheckpointStore, snapshot
from treenail.adapters.checkpoint.tree import Snapshot, freeze, thaw

__all__ = [
    "CheckpointStore",
    "ShardSnapshot",
    "Snapshot",
    "consolidate",
    "freeze",
    "persist",
    "read_shards",
    "read_whole",
    "snapshot",
    "snapshot_shards",
    "stored_names",
    "thaw",
    "write_shards",
]
