"""Configs put together from several files: bases, deletions, overlays, packages; and where each part says it stands."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from treenail.adapters.documents import Document, InvalidConfigError, Map, load_document
from treenail.kernel import ConfigError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def load(path: Path, *overlays: Path, environment: Mapping[str, str] | None = None) -> Document:
    return load_document(path, overlays=overlays, environment=environment or {})


def mistakes(path: Path, *overlays: Path) -> list[str]:
    with pytest.raises(InvalidConfigError) as caught:
        load(path, *overlays)
    start = f"{path.parent}/"
    return [str(mistake).replace(start, "") for mistake in caught.value.mistakes]


def test_a_file_without_bases_is_what_it_says(write: Write) -> None:
    path = write("run.yaml", "a: 1\nb: {c: [1, 2]}\n")
    assert load(path).data == {"a": 1, "b": {"c": [1, 2]}}
    assert load(path).locate(("b", "c", 1)) == f"{path}:2:12"


def test_mappings_merge_and_everything_else_is_replaced(write: Write) -> None:
    write("base.yaml", "optimizer: {type: SGD, lr: 0.02, options: {nesterov: true}}\ngpus: [0, 1, 2]\nname: x\n")
    path = write(
        "run.yaml", "_base_: base.yaml\ngpus: [0]\nnew: 1\noptimizer: {lr: 0.1, options: {foreach: true}, decay: 0}\n"
    )
    data = load(path).data
    assert data == {
        "optimizer": {"type": "SGD", "lr": 0.1, "options": {"nesterov": True, "foreach": True}, "decay": 0},
        "gpus": [0],
        "name": "x",
        "new": 1,
    }
    assert isinstance(data, Map)
    assert list(data) == ["optimizer", "gpus", "name", "new"]
    assert list(data["optimizer"]) == ["type", "lr", "options", "decay"]  # type: ignore[call-overload]  # a Map, as above


def test_a_mapping_replaces_a_scalar_and_null_takes_out_a_mapping(write: Write) -> None:
    write("base.yaml", "a: 1\nb: {c: 1}\n")
    assert load(write("run.yaml", "_base_: base.yaml\na: {c: 1}\nb: null\n")).data == {"a": {"c": 1}, "b": None}


def test_delete_drops_what_the_bases_had_there(write: Write) -> None:
    write("base.yaml", "optimizer: {type: SGD, lr: 0.02, momentum: 0.9}\nkeep: 1\n")
    write("middle.yaml", "_base_: base.yaml\noptimizer: {nesterov: true}\n")
    path = write(
        "run.yaml",
        "_base_: middle.yaml\noptimizer: {_delete_: true, type: AdamW}\nmodel: {_delete_: true, type: mlp}\n",
    )
    assert load(path).data == {"optimizer": {"type": "AdamW"}, "keep": 1, "model": {"type": "mlp"}}


def test_a_deletion_in_the_base_of_an_overlay_reaches_the_config(write: Write) -> None:
    run = write("run.yaml", "files: {type: local, root: work}\n")
    write("store.yaml", "files: {_delete_: true, type: s3}\n")
    overlay = write("deploy/s3.yaml", "_base_: ../store.yaml\nfiles: {bucket: b}\n")
    assert load(run, overlay).data == {"files": {"type": "s3", "bucket": "b"}}


def test_delete_false_deletes_nothing_even_over_a_deletion(write: Write) -> None:
    run = write("run.yaml", "a: {x: 1}\n")
    write("store.yaml", "a: {_delete_: true, y: 1}\n")
    overlay = write("over.yaml", "_base_: store.yaml\na: {_delete_: false, z: 1}\n")
    assert load(run, overlay).data == {"a": {"y": 1, "z": 1}}
    assert load(run, write("other.yaml", "a: {_delete_: false, z: 1}\n")).data == {"a": {"x": 1, "z": 1}}


def test_reserved_keys_in_wrong_places_are_mistakes(write: Write) -> None:
    path = write("run.yaml", "a: [{_delete_: true}]\nb: {_delete_: yes}\nc: {_base_: other.yaml}\n_delete_: true\n")
    found = mistakes(path)
    assert [each.split(": ")[0] for each in found] == ["run.yaml:4:1", "run.yaml:1:6", "run.yaml:2:5", "run.yaml:3:5"]
    assert "drop everything" in found[0]
    assert "lists are replaced as a whole" in found[1]
    assert "true or false" in found[2]
    assert "${base:…}" in found[3]


def test_later_overlays_win_and_each_part_keeps_its_place(write: Write) -> None:
    run = write("run.yaml", "files: {type: local, root: work}\nloop: {epochs: 1}\n")
    first = write("deploy/s3.yaml", "files: {root: a}\n")
    second = write("deploy/big.yaml", "files:\n  root: b\nworkers: 8\n")
    document = load(run, first, second)
    assert document.data == {"files": {"type": "local", "root": "b"}, "loop": {"epochs": 1}, "workers": 8}
    assert document.locate(("files", "root")) == f"{second}:2:9"
    assert document.locate(("files", "type")) == f"{run}:1:15"
    assert document.locate(("files",), key=True) == f"{second}:1:1"
    assert document.locate(("loop",)) == f"{run}:2:7"
    assert load(run, second, first).data == {**document.data, "files": {"type": "local", "root": "a"}}


def test_several_bases_may_not_share_a_key(write: Write) -> None:
    write("a.yaml", "model: 1\nx: 1\n")
    write("b.yaml", "y: 1\nmodel: 2\n")
    path = write("run.yaml", "_base_: [a.yaml, b.yaml]\nmodel: 3\n")
    (found,) = mistakes(path)
    assert found.startswith("b.yaml:2:1: model: two bases set this key, the other at a.yaml:1:1;")


def test_two_bases_may_inherit_the_same_file_as_long_as_neither_changes_it(write: Write) -> None:
    write("runtime.yaml", "seed: 0\nvis: {a: .nan}\n")
    write("a.yaml", "_base_: runtime.yaml\nx: 1\n")
    write("b.yaml", "_base_: runtime.yaml\ny: 1\n")
    path = write("run.yaml", "_base_: [a.yaml, b.yaml]\n")
    assert set(load(path).data) == {"seed", "vis", "x", "y"}  # type: ignore[call-overload]  # a mapping
    write("b.yaml", "_base_: runtime.yaml\nseed: 1\n")
    (found,) = mistakes(path)
    assert found.startswith("b.yaml:2:1: seed: two bases set this key, the other at runtime.yaml:1:1")


def test_a_ladder_of_diamonds_is_read_once(write: Write) -> None:
    write("0.yaml", "seed: 0\n")
    for rung in range(1, 60):  # 2^60 ways lead to 0.yaml
        write(f"{rung}.yaml", f"_base_: [{rung - 1}.yaml, {rung - 1}.yaml]\nk{rung}: 1\n")
    data = load(write("run.yaml", "_base_: 59.yaml\n")).data
    assert isinstance(data, Map)
    assert len(data) == 60


@pytest.mark.parametrize(("count", "fits"), [(100, True), (101, False)])
def test_a_chain_of_bases_has_an_end(write: Write, count: int, fits: bool) -> None:
    write("0.yaml", "seed: 0\n")
    for link in range(1, count + 1):
        write(f"{link}.yaml", f"_base_: {link - 1}.yaml\n")
    path = write("run.yaml", f"_base_: {count - 1}.yaml\n")
    if fits:
        assert load(path).data == {"seed": 0}
    else:
        assert "more than 100 files" in mistakes(path)[0]


def test_a_circle_is_named(write: Write) -> None:
    write("sub/b.yaml", "_base_: ../c.yaml\n")
    write("c.yaml", "x: 1\n_base_:\n  - a.yaml\n")
    path = write("a.yaml", "_base_: sub/b.yaml\n")
    (found,) = mistakes(path)
    assert found.startswith("c.yaml:3:5: _base_[0]: the bases go in a circle: a.yaml → sub/b.yaml → c.yaml → a.yaml;")
    own = write("own.yaml", "_base_: own.yaml\n")
    assert "own.yaml → own.yaml" in mistakes(own)[0]


@pytest.mark.parametrize(
    ("base", "place", "message"),
    [
        ("optimiser.yaml", "1:9", "did you mean 'optimizer.yaml'?"),
        ("no/such.yaml", "1:9", "nor its directory"),
        (".", "1:9", "is a directory"),
        ("x" * 5000, "1:9", "there is no file"),
        ("[optimizer.yaml, 3]", "1:26", "a base is the name of a file"),
        ("{a: 1}", "1:9", "a base is the name of a file"),
        ("code.py", "1:9", "reading a base runs no code"),
        ("list.yaml", None, "a base must be a mapping"),
        ("${env:NO}.yaml", "1:9", "NO is not set"),
        ("${base:a}.yaml", "1:9", "the bases are not known yet"),
    ],
)
def test_a_base_that_cannot_be_is_a_mistake_at_its_name(
    write: Write, base: str, place: str | None, message: str
) -> None:
    write("optimizer.yaml", "optimizer: {}\n")
    write("code.py", "raise SystemExit('this ran')\n")
    write("list.yaml", "- 1\n")
    (found,) = mistakes(write("run.yaml", f"_base_: {base}\n"))
    assert found.startswith(f"run.yaml:{place}: _base_" if place else "list.yaml:1:1: ")
    assert message in found


def test_a_mistake_in_a_base_is_reported_in_the_base(write: Write) -> None:
    write("base.yaml", "a: 1\nb: ${env:NO_SUCH}\n")
    (found,) = mistakes(write("run.yaml", "_base_: base.yaml\n"))
    assert found.startswith("base.yaml:2:4: b: the environment variable NO_SUCH is not set")


def test_a_base_may_have_another_format_and_be_chosen_by_the_environment(write: Write) -> None:
    write("small.json", '{"width": 8}')
    write("large.toml", "width = 64\n")
    path = write("run.yaml", "_base_: ${env:SIZE:small.json}\n")
    assert load(path).data == {"width": 8}
    assert load(path, environment={"SIZE": "large.toml"}).data == {"width": 64}


def test_only_mappings_can_be_laid_over_each_other(write: Write) -> None:
    items, run = write("list.yaml", "[1]\n"), write("run.yaml", "a: 1\n")
    assert load(items).data == [1]
    assert "nothing can be laid over" in mistakes(items, run)[0]
    assert "an overlay must be a mapping" in mistakes(run, items)[0]
    with pytest.raises(ConfigError, match="no such file"):
        load(run, run.with_name("missing.yaml"))


@pytest.fixture
def packages(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    write("site/zoo_a/__init__.py", "raise SystemExit('imported')\n")
    write(
        "site/zoo_a/configs/schedules/short.yaml",
        "train_cfg: {type: Epochs, n: 12}\nn: 1\nown: {_scope_: other, x: 1}\n",
    )
    write("site/zoo_b/__init__.py", "")
    write("site/zoo_b/.mim/configs/x.yaml", "_base_: ../../../secret.yaml\n")
    write("site/secret.yaml", "y: {z: 1}\n")
    write("site/zoo_space/configs/x.yaml", "model: {type: Net}\n")  # a namespace package: no __init__.py
    write("site/zoo_module.py", "")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    return write


def test_a_base_of_a_package_brings_its_scope_and_the_package_is_not_imported(packages: Write) -> None:
    path = packages("run.yaml", "_base_: zoo_a::schedules/short.yaml\ntrain_cfg: {n: 3}\n")
    document = load(path)
    assert document.data == {
        "train_cfg": {"type": "Epochs", "n": 3, "_scope_": "zoo_a"},
        "n": 1,
        "own": {"_scope_": "other", "x": 1},
    }
    assert document.locate(("own", "x")).endswith("configs/schedules/short.yaml:3:26")
    assert "zoo_a" not in sys.modules
    assert load(packages("b.yaml", "_base_: zoo_b::x.yaml\n")).data == {"y": {"z": 1, "_scope_": "zoo_b"}}
    assert load(packages("c.yaml", "_base_: zoo_space::x.yaml\n")).data == {
        "model": {"type": "Net", "_scope_": "zoo_space"}
    }


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("zoo_a::schedules/shrt.yaml", "did you mean 'short.yaml'?"),
        ("zoo_a::../__init__.py", "leads out of the configs"),
        ("zoo_a::/etc/passwd", "leads out of the configs"),
        ("'zoo_a::'", "leads out of the configs"),
        ("zoo_a.inner::x.yaml", "no name of a top-level package"),
        ("zoo_none::x.yaml", "is not installed"),
        ("zoo_module::x.yaml", "has no folder 'configs'"),
        ("zoo_a::x.py", "runs no code"),
    ],
)
def test_a_base_of_a_package_that_cannot_be(packages: Write, base: str, message: str) -> None:
    (found,) = mistakes(packages("run.yaml", f"_base_: {base}\n"))
    assert found.startswith("run.yaml:1:9: _base_: ")
    assert message in found
