"""Schedules as mmengine's configs write them, and how mmengine steps them."""

from typing import Any

from torch.optim import Optimizer

Arguments = dict[str, Any]  # of one of many classes


def build(module: Any, name: str, optimizer: Optimizer, given: Arguments) -> Any:
    given = dict(given)
    kind = getattr(module, name)
    if given.pop("convert_to_iter_based", False):
        return kind.build_iter_from_epoch(optimizer, **given)
    return kind(optimizer, **given)


class Clocked:
    """Steps a schedule by epoch only when an epoch is over, as mmengine's hook does."""

    def __init__(self, scheduler: Any, epoch_length: int) -> None:
        self.scheduler, self.epoch_length, self.count = scheduler, epoch_length, 0

    def step(self) -> None:
        self.count += 1
        if not self.scheduler.by_epoch or self.count % self.epoch_length == 0:
            self.scheduler.step()


N = 12
TABLE: dict[str, list[tuple[str, Arguments]]] = {
    "warmup constant": [("ConstantLR", {"factor": 0.1, "begin": 0, "end": 50, "by_epoch": False})],
    "warmup linear": [("LinearLR", {"start_factor": 0.1, "begin": 0, "end": 50, "by_epoch": False})],
    "warmup exp": [("ExponentialLR", {"gamma": 0.1, "begin": 0, "end": 50, "by_epoch": False})],
    "fixed": [("ConstantLR", {"factor": 1})],
    "step": [("MultiStepLR", {"milestones": [8, 11], "gamma": 0.1, "by_epoch": True})],
    "step with warmup": [
        ("LinearLR", {"start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 50}),
        ("MultiStepLR", {"begin": 0, "end": 12, "by_epoch": True, "milestones": [8, 11], "gamma": 0.1}),
    ],
    "poly": [("PolyLR", {"power": 0.7, "eta_min": 0.001, "begin": 0, "end": N, "by_epoch": True})],
    "exp": [("ExponentialLR", {"gamma": 0.5, "begin": 0, "end": N, "by_epoch": True})],
    "CosineAnnealing": [("CosineAnnealingLR", {"eta_min": 0.5, "T_max": N, "begin": 0, "end": N, "by_epoch": True})],
    "FlatCosineAnnealing": [
        ("ConstantLR", {"factor": 1, "begin": 0, "end": N * 0.75}),
        ("CosineAnnealingLR", {"eta_min": 0.005, "begin": N * 0.75, "end": N, "T_max": N * 0.25, "by_epoch": True}),
    ],
    "CosineRestart": [
        (
            "CosineRestartLR",
            {"periods": [5, 10, 15], "restart_weights": [1, 0.7, 0.3], "eta_min": 0.001, "by_epoch": True},
        )
    ],
    "OneCycle": [
        (
            "OneCycleLR",
            {
                "eta_max": 0.02,
                "total_steps": 200,
                "pct_start": 0.3,
                "anneal_strategy": "cos",
                "div_factor": 25,
                "final_div_factor": 1e4,
                "three_phase": True,
                "by_epoch": False,
            },
        )
    ],
    "LinearAnnealing": [("LinearLR", {"start_factor": 1, "end_factor": 0.01, "begin": 0, "end": N, "by_epoch": True})],
    "warm-up and cosine": [
        ("LinearLR", {"start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 20}),
        ("CosineAnnealingLR", {"T_max": 100, "by_epoch": False, "begin": 20, "end": 120}),
    ],
    "cyclic": [
        ("CosineAnnealingLR", {"T_max": 8, "eta_min": 1.0, "begin": 0, "end": 8, "by_epoch": True}),
        ("CosineAnnealingLR", {"T_max": 4, "eta_min": 1e-5, "begin": 8, "end": 12, "by_epoch": True}),
    ],
    "converted": [
        (
            "CosineAnnealingLR",
            {"eta_min": 0.5, "T_max": N, "by_epoch": True, "convert_to_iter_based": True, "epoch_length": 15},
        )
    ],
}
