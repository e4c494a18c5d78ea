"""`treenail consolidate`: the tensors of a checkpoint in one file, whatever number of ranks saved it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.cli import main
from treenail.adapters.files import LocalFiles


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A directory with a checkpoint of one process, complex and tied tensors among its own."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": {**model.state_dict(), "tied": model.weight, "turned": torch.arange(6.0).view(2, 3).t()},
        "optimizer": optimizer.state_dict(),
        "loop": {"phase": (1, [torch.tensor([1 + 2j])])},
    }
    store = CheckpointStore(LocalFiles(tmp_path / "checkpoints"))
    store.save(state, step=1, epoch=0, reason="a test", pointers=("latest",))
    return tmp_path / "checkpoints"


def test_a_checkpoint_without_shards_becomes_one_file_of_all_tensors(checkpoints: Path, tmp_path: Path) -> None:
    assert main(["consolidate", str(checkpoints / "latest"), "--out", str(tmp_path / "new" / "all.safetensors")]) == 0
    found = load_file(tmp_path / "new" / "all.safetensors")
    _, state = CheckpointStore(LocalFiles(checkpoints)).load()
    model = state["model"]
    assert isinstance(model, dict)
    optimizer = {f"optimizer/state/{number}/momentum_buffer" for number in (0, 1)}
    assert found.keys() == {*(f"model/{name}" for name in model), *optimizer, "loop/phase/1/0"}
    assert all(torch.equal(found[f"model/{name}"], tensor) for name, tensor in model.items())
    assert torch.equal(torch.view_as_complex(found["loop/phase/1/0"]), torch.tensor([1 + 2j]))


def test_a_part_has_the_names_of_its_own_state(checkpoints: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_text("in the way")
    assert (
        main(["consolidate", str(checkpoints / "step-00000001"), "--out", str(out), "--part", "model", "--force"]) == 0
    )
    assert load_file(out).keys() == {"weight", "bias", "tied", "turned"}


@pytest.mark.parametrize(
    ("checkpoint", "out", "options", "message"),
    [
        ("checkpoints/best", "new.safetensors", [], "there is no such checkpoint; name …/checkpoints/latest"),
        (
            "checkpoints",
            "new.safetensors",
            [],
            "there is no checkpoint 'checkpoints'; name a directory with a manifest",
        ),
        ("checkpoints/latest", "taken.safetensors", [], "this file exists already; choose another, or add --force"),
        ("checkpoints/latest", ".", ["--force"], "this is a directory; name a file"),
        ("checkpoints/latest", "taken.safetensors/new", [], "could not be written"),
        ("checkpoints/latest", "new.safetensors", ["--part", "modle"], "no tensors of 'modle'; did you mean 'model'"),
    ],
)
@pytest.mark.usefixtures("checkpoints")
def test_wrong_input_is_one_line_and_changes_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    checkpoint: str,
    out: str,
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "taken.safetensors").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["consolidate", str(tmp_path / checkpoint), "--out", str(tmp_path / out), *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "taken.safetensors").read_text() == "mine"
