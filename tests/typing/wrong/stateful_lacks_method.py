"""A part that cannot take its state back."""

from treenail.kernel import Engine


class Counter:
    def __init__(self) -> None:
        self.seen = 0

    def state_dict(self) -> dict[str, object]:
        return {"seen": self.seen}


engine = Engine({"counter": Counter()})  # E: "Counter"; expected "str": "Stateful"
