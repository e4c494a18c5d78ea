"""Values that modules register: what is shown of them, when they are written, and by whom."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.hooks.small_runs import Training, small_run, training
from treenail.adapters.averaging import exponential_average
from treenail.adapters.comm import run_threads
from treenail.adapters.data import Batches
from treenail.adapters.files import MemoryFiles, Mounts, get, use_mounts
from treenail.adapters.hooks import AveragingHook, ProbeData, ProbedModule, ProbeHook, probe_data, register_probe
from treenail.adapters.loops import EpochLoop, EvalLoop
from treenail.adapters.optim import SupervisedStep
from treenail.adapters.runtime import train
from treenail.contracts import TrainWork
from treenail.kernel import Communicator, Engine, HookError, TrainingError, spec


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:  # Any: of any shape
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8)


# ProbeData


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("right", "right"),
        (1, 1),
        (True, True),
        (None, None),
        (0.25, 0.25),
        (float("nan"), "nan"),
        ([1, "a", [2.5]], [1, "a", [2.5]]),
        ((1, 2), [1, 2]),
        ({"mj": 1.0, 2: {"n": [1]}}, {"mj": 1.0, "2": {"n": [1]}}),
        (torch.tensor(3), 3),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (np.float32(0.5), 0.5),
    ],
)
def test_what_json_can_hold_is_shown_as_it_is(value: object, shown: object) -> None:
    found = ProbeData(value).to_log()
    assert found == shown
    assert type(found) is type(shown)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32, torch.bfloat16, torch.bool, torch.complex64])
def test_arrays_are_written_with_their_shape_in_the_name(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(6).reshape(2, 3).to(dtype)
    path = ProbeData(values).to_log(f"{tmp_path}/value", rank=3)
    assert path == f"{tmp_path}/value_probe_3_2x3.npy"
    assert np.array_equal(np.load(path), values.float().numpy() if dtype == torch.bfloat16 else values.numpy())


def test_arrays_in_lists_and_mappings_keep_their_places(tmp_path: Path) -> None:
    value = {"a": [torch.zeros(2), 7], "../a": torch.ones(3)}
    assert ProbeData(value).to_log(f"{tmp_path}/v") == {
        "ori_file": {"a": [f"{tmp_path}/v/a/0_probe_0_2.npy", 7], "../a": f"{tmp_path}/v/a-2_probe_0_3.npy"}
    }
    assert np.load(tmp_path / "v" / "a-2_probe_0_3.npy").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("value", "files"),
    [
        (image(40, 40), ["v_probe_0_40x40"]),
        (image(40, 40, 3), ["v_probe_0_40x40x3"]),
        (image(40, 40, 1), ["v_probe_0_40x40x1"]),
        (image(3, 8, 9), [f"v/{n}_probe_0_8x9" for n in range(3)]),
        (image(2, 8, 9, 3), [f"v/{n}_probe_0_8x9x3" for n in range(2)]),
        ([image(8, 9, 3), image(4, 4)], ["v/0_probe_0_8x9x3", "v/1_probe_0_4x4"]),
    ],
)
def test_images_of_all_forms_are_written(tmp_path: Path, value: Any, files: list[str]) -> None:
    shown = ProbeData(value, is_image=True).to_log(f"{tmp_path}/v", image_format="png")
    paths = [f"{tmp_path}/{name}.png" for name in files]
    assert shown == (paths[0] if len(files) == 1 else {"ori_file": paths})
    pictures = [value] if len(files) == 1 else list(value)
    for path, picture in zip(paths, pictures, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), picture[..., 0] if picture.shape[-1] == 1 else picture)


def test_floats_are_scaled_transparency_is_kept_and_jpg_is_the_rule(tmp_path: Path) -> None:
    gray = ProbeData(torch.tensor([[0.0, 0.5], [1.0, 0.25]]), is_image=True).to_log(
        f"{tmp_path}/gray", image_format="png"
    )
    assert np.asarray(Image.open(str(gray))).tolist() == [[0, 128], [255, 64]]
    clear = ProbeData(image(4, 4, 4), is_image=True).to_log(f"{tmp_path}/clear")
    assert clear == f"{tmp_path}/clear_probe_0_4x4x4.png"
    assert np.array_equal(np.asarray(Image.open(clear)), image(4, 4, 4))
    assert Image.open(str(ProbeData(image(4, 4), is_image=True).to_log(f"{tmp_path}/j"))).format == "JPEG"


@pytest.mark.parametrize("video_format", ["webp", "gif"])
def test_videos_move(tmp_path: Path, video_format: Any) -> None:
    frames = np.stack([np.full((8, 8, 3), 60 * n, dtype=np.uint8) for n in range(4)])
    path = ProbeData(frames, is_video=True, fps=4).to_log(f"{tmp_path}/v", video_format=video_format)
    assert path == f"{tmp_path}/v_probe_0_4x8x8x3.{video_format}"
    found = Image.open(path)
    assert getattr(found, "n_frames", 1) == 4
    found.seek(3)
    assert abs(int(np.asarray(found.convert("RGB"))[0, 0, 0]) - 180) <= 1
    assert found.info["duration"] == 250


def test_a_page_shows_images_with_their_labels_escaped(tmp_path: Path) -> None:
    probe = ProbeData(image(2, 8, 8, 3), True, True, ["<b>'one'\"", "two"])
    shown = probe.to_log(f"{tmp_path}/d/v")
    assert shown == {
        "ori_file": [f"{tmp_path}/d/v/{n}_probe_0_8x8x3.jpg" for n in range(2)],
        "html": f"{tmp_path}/d/v_probe_0.html",
    }
    page = (tmp_path / "d" / "v_probe_0.html").read_text()
    assert 'src="v/0_probe_0_8x8x3.jpg"' in page
    assert "&lt;b&gt;&#x27;one&#x27;&quot;" in page
    assert page.index("one") < page.index("two")
    ProbeData({"a": image(8, 8)}, True, True, {"a": "cat"}).to_log(f"{tmp_path}/m")
    assert "cat" in (tmp_path / "m_probe_0.html").read_text()
    ProbeData(image(3, 8, 8), True, True, "4d_data").to_log(f"{tmp_path}/s")
    assert (tmp_path / "s_probe_0.html").read_text().count("4d_data") == 3


def test_files_go_to_any_store() -> None:
    with use_mounts(Mounts(mounts={"mem://x": spec(MemoryFiles)()})):
        assert ProbeData(torch.ones(2)).to_log("mem://x/run/v") == "mem://x/run/v_probe_0_2.npy"
        assert np.load(BytesIO(get("mem://x/run/v_probe_0_2.npy"))).tolist() == [1, 1]


def test_values_are_counted() -> None:
    assert ProbeData([1, 1, "a", [2]], view_distribute=True).counts() == {"1": 2, "a": 1, "2": 1}
    assert ProbeData({"mj": 1.0, "k": ["x", "x"]}, view_distribute=True).counts() == {"mj_1.0": 1, "k_x": 2}
    with pytest.raises(ValueError, match=r"data\[0\] is an array"):
        ProbeData([torch.ones(2)], view_distribute=True).counts()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (image(5), "this is no image"),
        (image(2, 2, 2, 5), "this is no image"),
        (image(0, 4, 3), "this is no image"),
        (torch.full((4, 4), 1.5), "from 1.5 to 1.5"),
        (torch.full((4, 4), float("nan")), "from nan"),
        (torch.full((4, 4), -1), "from -1"),
        ("text", "no array"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeData(value, is_image=True).to_log(f"{tmp_path}/v")


def test_options_that_contradict_each_other_and_values_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"is_image": True, "is_video": True}, "images or videos"),
        ({"build_html": True, "build_label": "x"}, "build_html needs"),
        ({"is_image": True, "build_html": True}, "a page needs labels"),
        ({"is_image": True, "view_distribute": True}, "not counted"),
        ({"fps": 0}, "fps is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ProbeData(1, **options)
    for value, message in (
        ({"a": [object()]}, r"data\['a'\]\[0\] is object"),
        ({None: 1}, "the key None"),
        ({1: 1, "1": 2}, "the same as texts"),
        (torch.ones(2).to_sparse(), "not dense"),
        (np.array(["a"]), "is ndarray"),
    ):
        with pytest.raises(ValueError, match=message):
            ProbeData(value).to_log(f"{tmp_path}/v")
    with pytest.raises(ValueError, match="give a prefix"):
        ProbeData(torch.ones(2)).to_log()
    with pytest.raises(ValueError, match="1 labels"):
        ProbeData(image(2, 4, 4), True, True, ["a"]).to_log(f"{tmp_path}/v")
    with pytest.raises(ValueError, match="labels are called b"):
        ProbeData({"a": image(4, 4)}, True, True, {"b": "c"}).to_log(f"{tmp_path}/v")
    with pytest.raises(ValueError, match="image_format='tiff'"):
        ProbeData(image(4, 4), True).to_log(f"{tmp_path}/v", image_format="tiff")  # type: ignore[arg-type]  # wrong on purpose


# Modules


class Inner(ProbedModule):
    def forward(self, data: dict[str, Any]) -> None:
        self.register_probe(data)
        self.register_probe({"dist": ProbeData(data["data_key"], view_distribute=True)})


class Outer(ProbedModule):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, data: dict[str, Any]) -> None:
        self.register_probe({**data, "img": ProbeData(image(4, 4), is_image=True)})
        self.inner(data)


def test_a_module_shows_what_it_and_those_below_it_registered_once(tmp_path: Path) -> None:
    module = Outer()
    data: dict[str, Any] = {"data_key": [1, 1], "folder": {"mj": 1.0}, "array": torch.zeros(2, 3)}
    module(data)
    data["array"].fill_(5)
    data["data_key"].append(9)
    found = module.probe_data()
    assert list(found) == [
        *("data_key", "folder", "array", "img"),
        *(
            "inner/data_key",
            "inner/folder",
            "inner/array",
            "inner/dist",
            "inner/dist_distribute",
            "inner/dist_norm_distribute",
        ),
    ]
    assert found["inner/dist_distribute"].to_log() == {"1": 2}
    assert found["inner/dist_norm_distribute"].to_log() == {"1": 1.0}
    assert found["data_key"].to_log() == [1, 1]
    assert not np.load(str(found["array"].to_log(f"{tmp_path}/a"))).any()
    assert module.probe_data() == {}
    module({"data_key": [2, 3]})
    module({"data_key": [3]})
    found = module.probe_data()
    assert found["inner/data_key"].to_log() == [3]
    assert found["inner/dist_distribute"].to_log() == {"3": 2, "2": 1}


def test_a_value_that_cannot_be_shown_names_its_key_and_module() -> None:
    with pytest.raises(ValueError, match="the probe 'x' of Linear: data is object"):
        register_probe(nn.Linear(1, 1), {"x": object()})


def test_copies_of_a_module_and_saved_ones_have_probes_of_their_own() -> None:
    module = Outer()
    other = copy.deepcopy(module)
    other({"data_key": [1]})
    assert module.probe_data() == {}
    buffer = BytesIO()
    torch.save(other, buffer)
    loaded = torch.load(BytesIO(buffer.getvalue()), weights_only=False)
    assert loaded.probe_data() == {}
    loaded({"data_key": [4]})
    assert loaded.probe_data()["inner/data_key"].to_log() == [4]
    assert other.probe_data()["inner/data_key"].to_log() == [1]
    assert module.state_dict() == {}


class Shows(nn.Module):
    """A layer that shows its inputs, and how they are distributed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.registered = 0

    def forward(self, inputs: Tensor) -> Tensor:
        signs = ProbeData([float(each) for each in inputs.detach()[:, 0].sign()], view_distribute=True)
        register_probe(self.layer, {"inputs": inputs, "signs": signs})
        outputs: Tensor = self.layer(inputs)
        return outputs


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_compiled_and_exported_models_go_on_working() -> None:
    class Plain(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            doubled = inputs * 2
            register_probe(self, {"doubled": doubled})
            return doubled + 1

    module = Plain()
    compiled = torch.compile(module, backend="eager")
    assert compiled(torch.ones(2)).tolist() == [3, 3]
    found = probe_data(module)["doubled"].data
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [2, 2]
    exported = torch.export.export(Plain(), (torch.ones(2),))
    assert exported.module()(torch.ones(2)).tolist() == [3, 3]
    assert torch.jit.trace(Plain(), torch.ones(2))(torch.zeros(2)).tolist() == [1, 1]  # type: ignore[no-untyped-call]  # of torch


# The hook


def meta(directory: Path, mode: str, step: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / f"{mode}_probe" / f"step-{step:08d}" / "meta.json").read_text())
    return found


def steps(directory: Path, mode: str = "train") -> list[int]:
    return sorted(int(each.name.partition("-")[2]) for each in (directory / f"{mode}_probe").glob("*"))


def probed(*hooks: Any, **options: Any) -> Training:
    return training(*hooks, model=Shows(), **options)


def test_every_interval_is_written_with_what_the_step_had(tmp_path: Path) -> None:
    batches = [[torch.full((4, 4), float(n)), torch.zeros(4, 1)] for n in range(1, 8)]
    done = probed(ProbeHook(3, tmp_path, save_last=True), batches=batches)
    done.run()
    assert steps(tmp_path) == [3, 6, 7]
    found = meta(tmp_path, "train", 6)
    assert {key: found[key] for key in ("step", "epoch", "mode", "world_size")} == {
        "step": 6,
        "epoch": 0,
        "mode": "train",
        "world_size": 1,
    }
    assert set(found["probes"]) == {
        "layer/inputs",
        *(f"layer/signs{kind}" for kind in ("", "_distribute", "_norm_distribute")),
    }
    assert found["probes"]["layer/signs_distribute"] == {"1.0": 4}
    path = Path(found["probes"]["layer/inputs"])
    assert path == tmp_path / "train_probe" / "step-00000006" / "layer-inputs_probe_0_4x4.npy"
    assert np.load(path)[0, 0] == 6
    # A run leaves the model as it was.
    assert probe_data(done.model) == {}
    done.model(torch.ones(1, 4))
    assert "layer/inputs" in probe_data(done.model)


def test_nothing_is_copied_in_other_steps(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.copies = nn.Linear(4, 1), 0

        def forward(self, inputs: Tensor) -> Tensor:
            outer = self

            class Watched(ProbeData):
                def copied(self) -> ProbeData:
                    outer.copies += 1
                    return super().copied()

            register_probe(self, {"inputs": Watched(inputs)})
            outputs: Tensor = self.layer(inputs)
            return outputs

    model = Counts()
    training(ProbeHook(2, tmp_path), model=model).run()
    assert steps(tmp_path) == [2, 4]
    assert model.copies == 2


def test_the_first_batch_of_an_evaluation_is_written_of_averages_too(tmp_path: Path) -> None:
    model = Shows()
    averages = exponential_average(model, momentum=0.5)
    data = [(torch.full((2, 4), float(n)), torch.zeros(2, 1)) for n in range(1, 4)]
    source = Batches(data)
    step = SupervisedStep(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1))
    validation = EvalLoop("val", model, nn.MSELoss(), Batches(data[1:]))
    loop = EpochLoop(TrainWork(step, source, validation), max_epochs=2)
    engine = Engine({"model": model, "averages": averages, "batches": source})
    engine.attach(AveragingHook())
    engine.attach(ProbeHook(100, tmp_path, modes=["val", "test"]))
    engine.run(loop, EvalLoop("test", model, nn.MSELoss(), Batches(data)))
    assert steps(tmp_path, "val") == [3, 6]
    assert steps(tmp_path, "test") == [6]
    assert not (tmp_path / "train_probe").exists()
    for mode, first in (("val", 2), ("test", 1)):
        inputs = np.load(meta(tmp_path, mode, 6)["probes"]["layer/inputs"])
        assert inputs.tolist() == [[first] * 4] * 2


def test_rank_0_writes_what_all_ranks_registered(tmp_path: Path) -> None:
    def one(ranks: Communicator) -> None:
        torch.manual_seed(0)
        sign = -1.0 if ranks.rank else 1.0
        hook = ProbeHook(1, tmp_path, communicator=ranks)
        training(
            hook, model=Shows(), batches=[[torch.full((3 + ranks.rank, 4), sign), torch.zeros(3 + ranks.rank, 1)]]
        ).run()

    run_threads(2, one)
    found = meta(tmp_path, "train", 1)
    assert found["world_size"] == 2
    assert found["probes"]["layer/signs"] == [[1.0] * 3, [-1.0] * 4]
    assert found["probes"]["layer/signs_distribute"] == {"-1.0": 4, "1.0": 3}
    names = [Path(path).name for path in found["probes"]["layer/inputs"]]
    assert names == ["layer-inputs_probe_0_3x4.npy", "layer-inputs_probe_1_4x4.npy"]


def test_a_resumed_run_writes_what_the_undisturbed_one_wrote(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    model = spec(Shows)()

    def go(directory: Path, epochs: int, resume: str | None = None) -> None:
        config = msgspec.structs.replace(
            small_run(epochs, probe=spec(ProbeHook)(3, str(directory / "probes"))), model=model
        )
        train(config, work_dir=directory, resume=resume)

    go(whole, 2)
    go(tmp_path / "parts", 1)
    go(tmp_path / "parts", 2, "latest")
    assert steps(whole / "probes") == [3, 6]
    for step in (3, 6):
        ours, theirs = (meta(each / "probes", "train", step) for each in (whole, tmp_path / "parts"))
        assert ours["probes"].pop("layer/inputs") != theirs["probes"].pop("layer/inputs")
        assert ours == theirs
        name = f"probes/train_probe/step-{step:08d}/layer-inputs_probe_0_4x4.npy"
        assert (whole / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_run_that_fails_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    done = probed(
        ProbeHook(2, tmp_path), batches=[[torch.ones(4, 4), torch.zeros(4, 1)], [torch.ones(4, 5), torch.zeros(4, 1)]]
    )
    with pytest.raises(RuntimeError):
        done.run()
    done.model(torch.ones(1, 4))
    assert "layer/inputs" in probe_data(done.model)


def test_what_cannot_be_shown_names_its_key_and_the_step_is_saved(tmp_path: Path) -> None:
    class Wrong(Shows):
        def forward(self, inputs: Tensor) -> Tensor:
            register_probe(self.layer, {"picture": ProbeData(inputs[0], is_image=True)})
            return super().forward(inputs)

    done = training(ProbeHook(2, tmp_path), model=Wrong())
    with pytest.raises(ValueError, match=r"the probe 'layer/picture': this is no image, \[height, width, .*: \[4\]"):
        done.run()
    assert [step for step, _ in done.saves.saved] == [2]


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"interval": 0}, "at least 1"),
        ({"modes": []}, "modes are"),
        ({"modes": ["predict"]}, "modes are"),
        ({"name_prefix": "../x"}, "name_prefix"),
        ({"image_format": "bmp"}, "image_format='bmp'"),
    ):
        with pytest.raises(ValueError, match=message):
            ProbeHook(**options)
    engine = Engine()
    engine.attach(ProbeHook())
    with pytest.raises((TrainingError, HookError), match="no module to probe"):
        engine.run()
