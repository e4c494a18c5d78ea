"""Checkpoints without pickle: a state tree as safetensors and JSON, under a manifest with sizes and checksums."""

from treenail.adapters.checkpoint.files import persist
from treenail.adapters.checkpoint.store import CheckpointStore, snapshot
from treenail.adapters.checkpoint.tree import Snapshot, freeze, thaw

__all__ = ["CheckpointStore", "Snapshot", "freeze", "persist", "snapshot", "thaw"]
