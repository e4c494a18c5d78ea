"""A place for curves of one's own: lines in a list."""

from pathlib import Path

from torch import Tensor, nn

from treenail.adapters.vis import JsonLines
from treenail.kernel import Engine, Late, Record, VisBackend, late


class Lines:
    def __init__(self, directory: Path, digits: int = 3) -> None:
        self.directory = directory
        self.digits = digits
        self.lines: list[str] = []

    def start(self, *, run: str, attempt: int, step: int, commit: int) -> None:
        self.lines.append(f"{run} #{attempt} from step {step}, commit {commit}")

    def scalars(self, record: Record) -> None:
        self.lines += [f"{record.step} {name} {value:.{self.digits}f}" for name, value in record.values.items()]

    def image(self, name: str, image: Tensor, *, step: int) -> None:
        self.lines.append(f"{step} {name} {list(image.shape)}")

    def graph(self, model: nn.Module, inputs: Tensor) -> None:
        self.lines.append(repr(model))

    def config(self, config: str) -> None:
        self.lines.append(config)

    def text(self, name: str, text: str, *, step: int) -> None:
        self.lines.append(f"{step} {name} {text}")

    def close(self) -> None:
        """Nothing is open."""


places: dict[str, Late[Path, VisBackend]] = {"lines": late(Lines)(digits=2), "files": late(JsonLines)()}
lines = late(Lines)(digits=1).build(Path("curves"))
place: VisBackend = lines
engine = Engine()
engine.subscribe(place.scalars)
engine.publish({"train/loss": 0.25, "epochs": 1})
engine.commit(steps=1)
assert lines.lines == ["1 train/loss 0.2", "1 epochs 1.0"]
