"""Files with weights: what is read of them, that no code in them runs, and what is said of those that are damaged."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict, defaultdict, deque
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from treenail.adapters.checkpoint import CheckpointStore
from treenail.adapters.files import LocalFiles, MemoryFiles, Mounts, use_mounts
from treenail.adapters.weights import Opaque, open_source, weights_of
from treenail.kernel import CheckpointError, spec


def weights() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def assert_read(found: dict[str, object]) -> None:
    assert list(found) == ["weight", "bias"]
    for name, tensor in weights().items():
        assert torch.equal(torch.as_tensor(found[name]), tensor)


class Custom:
    """A class that a reader does not know."""

    def __init__(self) -> None:
        self.number = 3


class Settings(dict[str, int]):
    """A subclass of dict that a reader does not know."""


class Names(list[str]):
    """A subclass of list that a reader does not know."""


class Calls:
    """Runs code when it is unpickled by pickle."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    ("holder", "part"),
    [
        (lambda tensors: tensors, None),
        (lambda tensors: {"state_dict": tensors, "epoch": 3}, None),
        (lambda tensors: {"model": tensors, "optimizer": {"state": {}}}, None),
        (lambda tensors: {"nets": {"generator": tensors, "critic": tensors}}, "nets.generator"),
        (lambda tensors: {"a": tensors, "b": tensors}, "b"),
        (lambda tensors: {"state_dict": tensors, "best_acc1": torch.tensor(0.7), "rng": torch.get_rng_state()}, None),
        (lambda tensors: {"model": tensors, "losses": deque([1.0], maxlen=5), "names": Names(["a"])}, None),
    ],
)
def test_weights_are_found_where_files_of_torch_have_them(tmp_path: Path, holder: object, part: str | None) -> None:
    assert callable(holder)
    assert_read(weights_of(open_source(saved(tmp_path / "a.pt", holder(weights()))), part))


def test_the_older_format_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_read(weights_of(open_source(tmp_path / "a.pth")))


def test_safetensors_are_read_whatever_their_name_and_in_several_files(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a")
    assert open_source(tmp_path / "a").kind == "safetensors"
    for name, tensor in weights().items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in weights()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_read(weights_of(open_source(tmp_path)))


def test_an_index_may_name_files_of_torch(tmp_path: Path) -> None:
    for name, tensor in weights().items():
        torch.save({name: tensor}, tmp_path / f"{name}.bin")
    index = {"weight_map": {name: f"{name}.bin" for name in weights()}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_read(weights_of(open_source(tmp_path)))
    (tmp_path / "bias.bin").unlink()
    with pytest.raises(CheckpointError, match=r"bias\.bin: there is no such file"):
        open_source(tmp_path)


def test_an_index_cannot_lead_out_of_its_directory(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "secret.safetensors")
    (tmp_path / "model").mkdir()
    index = {"weight_map": {"weight": "../secret.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="does not lie beside it"):
        open_source(tmp_path / "model")


def test_an_index_cannot_name_itself(tmp_path: Path) -> None:
    (tmp_path / "a.index.json").write_text(json.dumps({"weight_map": {"weight": "a.index.json"}}))
    with pytest.raises(CheckpointError, match="which holds no weights"):
        open_source(tmp_path / "a.index.json")


def test_a_file_in_a_store_is_read_by_its_uri() -> None:
    files = MemoryFiles()
    buffer = io.BytesIO()
    torch.save(weights(), buffer)
    files.write("models/a.pt", buffer.getvalue())
    CheckpointStore(files).save({"model": weights()}, step=1, epoch=0, reason="test", pointers=("latest",))
    with use_mounts(Mounts({"s3://bucket": spec(lambda: files)()})):
        assert_read(weights_of(open_source("s3://bucket/models/a.pt")))
        assert_read(weights_of(open_source("s3://bucket/latest")))
        with pytest.raises(CheckpointError, match="there is no such file"):
            open_source("s3://bucket/models/b.pt")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_files_and_checkpoints_are_read_from_a_web_server(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", weights())
    save_file(weights(), tmp_path / "a.safetensors")
    CheckpointStore(LocalFiles(tmp_path)).save(
        {"model": weights()}, step=1, epoch=0, reason="test", pointers=("latest",)
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for path in ("a.pt", "a.pt?download=true", "a.safetensors?download=true", "latest", "step-00000001"):
            found = weights_of(open_source(f"{address}/{path}"))
            assert_read({name: found[name] for name in weights()})  # safetensors knows no order
        with pytest.raises(CheckpointError, match=r"b\.pt: there is no such file"):
            open_source(f"{address}/b.pt")
        server.shutdown()


def test_a_checkpoint_of_ours_is_read_by_its_directory_and_by_a_pointer(tmp_path: Path) -> None:
    averages = {
        "updates": 1,
        "averaged": 1,
        "measured": None,
        "names": ["bias"],
        "weights": {"bias": torch.zeros(2)},
        "buffers": {},
    }
    state = {"model": OrderedDict(weights()), "averages": averages}
    store = CheckpointStore(LocalFiles(tmp_path))
    store.save(state, step=7, epoch=1, reason="test", pointers=("latest",))
    for name in ("latest", "step-00000007"):
        source = open_source(tmp_path / name)
        assert source.manifest is not None
        assert source.manifest.step == 7
        assert_read(weights_of(source))
        averaged = weights_of(source, "averages")
        assert torch.equal(torch.as_tensor(averaged["bias"]), torch.zeros(2))
        assert torch.equal(torch.as_tensor(averaged["weight"]), weights()["weight"])
    with pytest.raises(CheckpointError, match=r"holds checkpoints, and is none; name .*/latest"):
        open_source(tmp_path)


def test_averages_that_had_not_begun_are_refused(tmp_path: Path) -> None:
    averages: dict[str, object] = {
        "updates": 0,
        "averaged": 0,
        "measured": None,
        "names": [],
        "weights": {},
        "buffers": {},
    }
    store = CheckpointStore(LocalFiles(tmp_path))
    store.save({"model": weights(), "averages": averages}, step=7, epoch=1, reason="test", pointers=("latest",))
    with pytest.raises(CheckpointError, match="averaging had not begun"):
        weights_of(open_source(tmp_path / "latest"), "averages")


def test_objects_of_unknown_classes_are_stood_for_and_named(tmp_path: Path) -> None:
    value = {
        "state_dict": weights(),
        "custom": Custom(),
        "array": np.arange(3),
        "number": np.float64(2.5),
        "default": defaultdict(int, a=1),
        "settings": Settings(b=2),
    }
    source = open_source(saved(tmp_path / "a.pt", value))
    custom = source.tree["custom"]
    assert isinstance(custom, Opaque)
    assert custom.state == {"number": 3}
    assert source.opaque == (f"{__name__}.Custom",)
    array = source.tree["array"]
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [0, 1, 2]
    assert source.tree["number"] == 2.5
    assert (source.tree["default"], source.tree["settings"]) == ({"a": 1}, {"b": 2})


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        (eval, "__import__('pathlib').Path(PLACE).touch()"),
        (exec, "open(PLACE, 'w')"),
        (__import__("os").system, "touch PLACE"),
        (__import__("subprocess").check_call, ["touch", "PLACE"]),
        (__import__("pathlib").Path.touch, "PLACE"),
    ],
)
def test_a_malicious_file_runs_nothing(tmp_path: Path, call: tuple[object, object], older: bool) -> None:
    place = tmp_path / "ran"
    function, argument = call
    quoted = repr(str(place)) if function in (eval, exec) else str(place)
    words = argument if isinstance(argument, list) else [argument]
    words = [str(word).replace("PLACE", quoted) for word in words]
    path = tmp_path / "a.pt"
    value = {"state_dict": weights(), "x": Calls(function, words if isinstance(argument, list) else words[0])}
    torch.save(value, path, _use_new_zipfile_serialization=not older)
    with pytest.raises(CheckpointError, match=r"asks to call|without running its code"):
        open_source(path)
    assert not place.exists()


def test_a_pickle_of_pythons_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Calls(exec, f"open({str(tmp_path / 'ran')!r}, 'w')")))
    with pytest.raises(CheckpointError):
        open_source(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"an object of torch\.nn\..*Linear, no weights.*state_dict\(\)"):
        open_source(saved(tmp_path / "a.pt", nn.Linear(2, 2)))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_as_code(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="TorchScript archive, which is code"):
        open_source(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty.pth", b"", "the file is empty"),
        ("text.pth", b"not a checkpoint\n" * 40, "this is no file of torch.save"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n", "git lfs pull"),
        ("page.pth", b"<!DOCTYPE html><html>404</html>", "this is a web page"),
        ("own.pth", pickle.dumps(weights()), "a pickle of Python's own"),
        ("empty.safetensors", b"", "no whole file of safetensors"),
        ("torn.safetensors", b"\x40\0\0\0\0\0\0\0{", "no whole file of safetensors"),
        ("index.json", b"[]", "no index of a model's files"),
    ],
)
def test_files_of_another_kind_are_told(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)


def test_a_truncated_or_damaged_file_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"weight": torch.ones(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="truncated: copy or download it again"):
        open_source(path)
    path.write_bytes(whole.replace(b"data.pkl", b"daty.pkl"))
    with pytest.raises(CheckpointError, match=r"none of torch\.save"):
        open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}q\0(X\x06")
    with pytest.raises(CheckpointError):
        open_source(path)
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="damaged"):
        open_source(path)


def test_a_damaged_checkpoint_of_ours_is_told(tmp_path: Path) -> None:
    store = CheckpointStore(LocalFiles(tmp_path))
    store.save({"model": weights()}, step=7, epoch=1, reason="test", pointers=("latest",))
    file = tmp_path / "step-00000007" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        open_source(tmp_path / "latest")


def test_parts_that_are_misspelt_or_ambiguous_are_told(tmp_path: Path) -> None:
    source = open_source(saved(tmp_path / "a.pt", {"generator": weights(), "critic": weights(), "step": 3}))
    with pytest.raises(CheckpointError, match="say part: one of generator, critic"):
        weights_of(source)
    with pytest.raises(CheckpointError, match="no part 'genrator'; did you mean 'generator'"):
        weights_of(source, "genrator")
    with pytest.raises(CheckpointError, match="'step' holds no tensors"):
        weights_of(source, "step")
    with pytest.raises(CheckpointError, match="holds a list, no weights by name"):
        open_source(saved(tmp_path / "b.pt", [torch.ones(2)]))
    with pytest.raises(CheckpointError, match="there is no such file"):
        open_source(tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"part 'model' is an object of torch\.nn.*Linear.*state_dict\(\)"):
        weights_of(open_source(saved(tmp_path / "d.pt", {"model": nn.Linear(2, 2), "epoch": 3})))
    with pytest.raises(CheckpointError, match="no tensors by name in it; it holds epoch"):
        weights_of(open_source(saved(tmp_path / "e.pt", {"epoch": 3})))
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint: it has no manifest\.json"):
        open_source(tmp_path / "folder")
    (tmp_path / "folder" / ".metadata").touch()
    with pytest.raises(CheckpointError, match="dcp_to_torch"):
        open_source(tmp_path / "folder")


@pytest.mark.parametrize("uri", ["torchvision://resnet50", "open-mmlab://resnet50"])
def test_names_of_other_projects_tables_are_refused_with_what_to_write(uri: str) -> None:
    with pytest.raises(CheckpointError, match="https://"):
        open_source(uri)
