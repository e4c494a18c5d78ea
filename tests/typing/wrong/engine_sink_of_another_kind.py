"""A sink takes records."""

from treenail.kernel import Engine


def show(values: dict[str, float]) -> None:
    values.clear()


engine = Engine()
engine.subscribe(show)  # E: expected "Callable[[Record], None]"
