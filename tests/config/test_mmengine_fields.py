"""A config of mmengine's is answered with what its fields are called here."""

from treenail.adapters.config import Catalog, Document, InvalidConfigError, convert
from treenail.contracts import Run

CONFIG: dict[str, object] = {
    "model": {"type": "Linear", "in_features": 64, "out_features": 10},
    "train_dataloader": {"dataset": {"type": "digits"}, "batch_size": 2},
    "train_cfg": {"by_epoch": True, "max_epochs": 1},
    "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
    "custom_hooks": [{"type": "EMAHook"}],
    "hooks": {"mine": {"type": "LoggerHook", "priority": "LOW"}},
    "val": {"dataset": {"type": "digits", "split": "val"}, "batch_size": 2, "collate_fn": {"type": "default_collate"}},
    "sed": 3,
}


def test_each_field_is_answered_by_what_is_written_here() -> None:
    told: dict[str, str] = {}
    try:
        convert(Document("config.yaml", CONFIG), Run, Catalog())
    except InvalidConfigError as error:
        told = {each.path: each.message for each in error.mistakes}
    assert told.keys() == {*(CONFIG.keys() - {"model", "hooks", "val"}), "hooks.mine.priority", "val.collate_fn"}
    assert told["train_dataloader"].startswith("Run takes no 'train_dataloader'; write 'train': {dataset: …, ")
    assert told["train_cfg"].startswith("Run takes no 'train_cfg'; write 'loop': {type: EpochBasedTrainLoop, ")
    assert "'optimizer'" in told["optim_wrapper"]
    assert told["hooks.mine.priority"].endswith("; write it beside the hooks, in priorities: {mine: …}")
    assert told["val.collate_fn"].startswith("Evaluation takes no 'collate_fn'; write 'collate': ")
    assert told["sed"] == "Run takes no 'sed'; did you mean 'seed'?"
