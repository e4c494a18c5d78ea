"""A place for curves that takes values instead of a record."""

from torch import Tensor, nn

from treenail.kernel import VisBackend


class Prints:
    def start(self, *, run: str, attempt: int, step: int, commit: int) -> None:
        self.run = run

    def scalars(self, record: dict[str, float]) -> None:
        self.last = dict(record)

    def image(self, name: str, image: Tensor, *, step: int) -> None:
        self.shape = image.shape

    def graph(self, model: nn.Module, inputs: Tensor) -> None:
        self.model = model

    def config(self, config: str) -> None:
        self.config_text = config

    def text(self, name: str, text: str, *, step: int) -> None:
        self.note = text

    def close(self) -> None:
        del self.run


place: VisBackend = Prints()  # E: Got: ... def scalars(self, record: dict[str, float]) -> None
