"""What a step returns is an object until it was looked at."""

from typing_extensions import override

from treenail.contracts import StepOutput
from treenail.kernel import Engine, Hook


class Watch(Hook):
    @override
    def after_train_iter(
        self,
        engine: Engine,
        batch_index: int,
        batch: object,
        outputs: StepOutput,  # E: Argument 4 of "after_train_iter" is incompatible with supertype
    ) -> None:
        engine.meters.add("weight", outputs.weight)
