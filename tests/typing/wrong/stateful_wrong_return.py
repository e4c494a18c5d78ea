"""A state that is a list."""

from treenail.kernel import Stateful


class Counter:
    def __init__(self) -> None:
        self.seen = [0]

    def state_dict(self) -> list[int]:
        return self.seen

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.seen = [len(state_dict)]


part: Stateful = Counter()  # E: Got: ... def state_dict(self) -> list[int]
