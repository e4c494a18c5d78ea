"""What tests of samplers draw from, and how states travel."""

import json

from torch.utils.data import Dataset


class Indices(Dataset[int]):
    """n samples, each of which is its own index: a batch shows what was drawn.

    Args:
        size: n.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return int(index)


def through_json(state: dict[str, object]) -> dict[str, object]:
    """Return the state written as JSON, less than 1 KB of it, and read back."""
    text = json.dumps(state)
    assert len(text) < 1024
    loaded: dict[str, object] = json.loads(text)
    return loaded
