"""mmengine's functions for checkpoints: what they return and say is what mmengine's do."""

from __future__ import annotations

import contextvars
import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from tests.weights.trainings import network, other
from treenail.adapters.weights import compat
from treenail.kernel import CheckpointError


@pytest.fixture(scope="module")
def theirs() -> object:
    from mmengine.runner import checkpoint

    return checkpoint


def wrapped() -> nn.Module:
    """Return a module with a parallel part in a parallel whole."""
    return DataParallel(nn.ModuleDict({"inner": DataParallel(network()), "head": nn.Linear(1, 2)}))


def variants() -> list[dict[str, Tensor]]:
    whole = {f"inner.{name}": tensor for name, tensor in other().items()}
    whole |= {"head.weight": torch.ones(2, 1), "head.bias": torch.ones(2)}
    fewer = {name: tensor for name, tensor in whole.items() if not name.endswith(("0.bias", "num_batches_tracked"))}
    return [whole, fewer, whole | {"x": torch.ones(1), "y": torch.ones(1)}, fewer | {"head.bias": torch.ones(3)}]


@pytest.mark.parametrize("number", range(4))
def test_differences_are_told_in_mmengines_words(number: int, theirs, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]  # a module without types
    weights = OrderedDict(variants()[number])
    results = []
    for load_state_dict in (compat.load_state_dict, theirs.load_state_dict):
        module = wrapped()
        load_state_dict(module, weights)
        results.append((capsys.readouterr().out, module.state_dict()))
    (said, ours), (expected, reference) = results
    assert said == expected
    for name, tensor in reference.items():
        assert torch.equal(ours[name], tensor), name
    for load_state_dict in (compat.load_state_dict, theirs.load_state_dict):
        if expected:
            with pytest.raises(RuntimeError) as caught:
                load_state_dict(wrapped(), weights, strict=True)
            assert str(caught.value).strip() == expected.strip()
        else:
            load_state_dict(wrapped(), weights, strict=True)


def test_a_state_has_mmengines_names_and_versions(theirs) -> None:  # type: ignore[no-untyped-def]  # as above
    ours, reference = compat.get_state_dict(wrapped(), prefix="a."), theirs.get_state_dict(wrapped(), prefix="a.")
    assert list(ours) == list(reference)
    versions = getattr(ours, "_metadata", {})
    assert {name: each for name, each in versions.items() if name in reference._metadata} == dict(reference._metadata)
    moved = compat.weights_to_cpu(ours)
    assert list(moved) == list(ours)
    assert moved._metadata == versions  # type: ignore[attr-defined]  # as torch's states have it


def test_a_checkpoint_goes_to_a_file_and_back_and_is_read_by_mmengine(theirs, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # as above
    path = str(tmp_path / "a.pth")
    compat.save_checkpoint({"state_dict": {f"module.{name}": each for name, each in other().items()}, "meta": {}}, path)
    for load_checkpoint in (compat.load_checkpoint, theirs.load_checkpoint):
        model = network()
        checkpoint = load_checkpoint(model, path, map_location="cpu", strict=True)
        assert set(checkpoint) == {"state_dict", "meta"}
        for name, tensor in other().items():
            assert torch.equal(model.state_dict()[name], tensor)
    with pytest.raises(FileNotFoundError, match="can not be found"):
        compat.load_checkpoint(network(), str(tmp_path / "b.pth"))


def test_the_latest_checkpoint_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compat.find_latest_checkpoint(str(tmp_path)) is None
    assert "Did not find last_checkpoint" in capsys.readouterr().out
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step-1")
    assert compat.find_latest_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoints" / "latest")
    (tmp_path / "last_checkpoint").write_text("work/epoch_3.pth\n")
    assert compat.find_latest_checkpoint(str(tmp_path)) == "work/epoch_3.pth"


def test_loaders_of_schemes_are_registered_for_a_context(caplog: pytest.LogCaptureFixture) -> None:
    def in_a_context_of_its_own() -> None:
        @compat.CheckpointLoader.register_scheme(prefixes=["zoo://", "zoo://big/"])
        def load(filename: str, map_location: object) -> dict[str, object]:
            return {"state_dict": other(), "name": filename}

        with pytest.raises(KeyError, match="force=True"):
            compat.CheckpointLoader.register_scheme("zoo://", load)
        compat.CheckpointLoader.register_scheme("zoo://big/", lambda *_: {"big": True}, force=True)
        with caplog.at_level(logging.INFO, "test"):
            assert compat.load_checkpoint(network(), "zoo://a", logger=logging.getLogger("test"))["name"] == "zoo://a"
        assert "Loads checkpoint from path: zoo://a" in caplog.text
        assert compat.CheckpointLoader.load_checkpoint("zoo://big/a", logger="silent") == {"big": True}

    contextvars.copy_context().run(in_a_context_of_its_own)
    with pytest.raises(CheckpointError, match="https://"):
        compat.CheckpointLoader.load_checkpoint("torchvision://resnet50")
