"""Stored schemas: a check says the same with them and without, and never relies on what has changed."""

import contextlib
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.processes import Starter

from treenail.adapters.cli import main
from treenail.adapters.config import Catalog, ConfigChecker, InvalidConfigError, Source
from treenail.adapters.config.cache import load_stored
from treenail.adapters.config.freezing import freeze

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "digits.yaml"


def check(directory: Path, *arguments: str, store: str) -> list[object]:
    """Return the exit code and the errors of `treenail check`, run in a directory."""
    os.environ["XDG_CACHE_HOME"] = store
    os.chdir(directory)
    sys.path.insert(0, "")
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = main(["check", *arguments])
    return [code, errors.getvalue()]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "treenail"


def outcome(checker: ConfigChecker, *overrides: str) -> list[str]:
    try:
        checker.check(Source(DIGITS, overrides))
    except InvalidConfigError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


OVERRIDES = [
    "seed=1",
    "optimizer.lrr=1",
    "optimizer.type=AdmW",
    "optimizer.type=Linear",
    "optimizer.type=nothing:here",
    "model.args.0.kernel_size=[1,2,3]",
    "model.args.0.padding_mode=zero",
    "model.args.0.dtype=float31",
    "model.args.1={type: AdamW}",
    "loss.smoothing=1",
    "hooks.best.mode=biggest",
    "hooks.loger=null",
    "val=null",
    "schedules.0.scheduler={type: ReduceLROnPlateau}",
    "schedules.0.scheduler.T_max=fast",
    "train.sampler.type=digits",
    "+hooks.x={type: treenail:timer}",
]


def test_stored_schemas_find_the_same_mistakes(cache: Path) -> None:
    fresh = ConfigChecker(fresh=True)
    derived = [outcome(fresh, override) for override in OVERRIDES]
    assert list(cache.iterdir())
    assert load_stored(()) is not None
    assert [outcome(ConfigChecker(), override) for override in OVERRIDES] == derived
    assert sum(bool(each) for each in derived) == len(OVERRIDES) - 2


def run_python(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, cwd=tmp_path, check=False
    )


def test_a_second_check_imports_no_torch(tmp_path: Path) -> None:
    text = f"""
        import sys
        from treenail.adapters.cli import main
        code = main(["check", {str(DIGITS)!r}])
        print(code, "torch" in sys.modules)
    """
    assert run_python(text, tmp_path).stdout.split("\n")[-2] == "0 True"
    assert run_python(text, tmp_path).stdout.split("\n")[-2] == "0 False"


@pytest.mark.parametrize("content", [b"", b"\x00\xff garbage", b"\x80"])
def test_a_damaged_store_is_written_anew(cache: Path, content: bytes) -> None:
    outcome(ConfigChecker())
    (path,) = cache.iterdir()
    path.write_bytes(content)
    assert load_stored(()) is None
    assert outcome(ConfigChecker(), "optimizer.lrr=1")
    assert load_stored(()) is not None


def test_an_unwritable_store_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert outcome(ConfigChecker()) == []
    assert len(outcome(ConfigChecker(), "optimizer.lrr=1")) == 1


def test_a_changed_module_is_derived_anew(tmp_path: Path, starter: Starter) -> None:
    """An own component's new parameter is known at the next check, and its old one no more."""
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\nclass Net(nn.Identity):\n    def __init__(self, width: int): ...\n"
    )
    config = tmp_path / "run.yaml"
    text = DIGITS.read_text()
    start, end = text.index("model:"), text.index("loss:")
    config.write_text(f"imports: [own_net]\n{text[:start]}model: {{type: own_net:Net, width: 3}}\n{text[end:]}")
    store = os.environ["XDG_CACHE_HOME"]
    for _ in range(2):
        assert starter.launch(check, tmp_path, 1, "run.yaml", store=store) == [[0, ""]]
    module = tmp_path / "own_net.py"
    module.write_text(module.read_text().replace("width: int", "depth: int"))
    os.utime(module, ns=(1, 1))
    [found] = starter.launch(check, tmp_path, 1, "run.yaml", store=store)
    assert isinstance(found, list)
    assert found[0] == 2
    assert "model.width: Net takes no 'width'" in found[1]


def test_what_has_no_annotation_is_said_once(tmp_path: Path, starter: Starter) -> None:
    head = "from torch import nn\nclass Net(nn.Identity):\n"
    (tmp_path / "bare_net.py").write_text(f"{head}    def __init__(self, width, depth: int): ...\n")
    config = tmp_path / "run.yaml"
    text = DIGITS.read_text()
    start, end = text.index("model:"), text.index("loss:")
    config.write_text(
        f"imports: [bare_net]\n{text[:start]}model: {{type: bare_net:Net, width: 3, depth: 1}}\n{text[end:]}"
    )
    for _ in range(2):
        found = starter.launch(check, tmp_path, 1, "run.yaml", "run.yaml", store=os.environ["XDG_CACHE_HOME"])
        note = "note: 'width' of bare_net:Net has no annotation that can be read, so its value is not checked\n"
        assert found == [[0, note]]


HOOK = "from treenail.kernel import Hook, Registry\nHOOKS = Registry('hook')\n"
SEQUENCES: dict[str, tuple[dict[str, str], list[str]]] = {
    "two components of one module": (
        {"two.py": "from torch import nn\nclass A(nn.Identity): ...\nclass B(nn.Identity): ...\n"},
        [
            "imports: [two]\nmodel: {type: 'two:A'}",
            "imports: [two]\nmodel: {type: 'two:B'}",
            "imports: [two]\nmodel: {type: 'two:C'}",
        ],
    ),
    "a registered name, and the same without it": (
        {"mine.py": f"{HOOK}@HOOKS.register('plain')\nclass Plain(Hook): ...\n"},
        [
            "imports: [mine]\ncustom_imports: [mine]\nhooks: {x: {type: plain}}",
            "imports: [mine]\nhooks: {x: {type: plain}}",
        ],
    ),
    "a name that replaces a declared one": (
        {
            "mine.py": f"{HOOK}@HOOKS.register('other', force=True)\nclass T(Hook):\n    def __init__(self, foo: int): ...\n"
        },
        ["imports: [mine]\ncustom_imports: [mine]\nhooks: {x: {type: other, foo: 1}}"] * 2,
    ),
    "what cannot be stored": (
        {
            "odd.py": "from enum import Enum\nfrom torch import nn\nclass Act(Enum):\n    RELU = nn.ReLU\n"
            "class Net(nn.Identity):\n    def __init__(self, act: Act, n: int = 2**64, s: str = '\\ud800'): ...\n"
        },
        ["imports: [odd]\nmodel: {type: 'odd:Net', act: RELU}", "imports: [odd]\nmodel: {type: 'odd:Net', act: GELU}"]
        * 2,
    ),
    "what a module only imports itself": (
        {"door.py": "import os\nfrom os import system\nfrom torch.nn import ReLU\n"},
        [f"imports: [door]\nmodel: {{type: 'door:{name}'}}" for name in ("os.system", "system", "ReLU")] * 2,
    ),
    "a scope that is none": ({}, ["model: {type: ReLU, _scope_: nothing}", "model: {type: ReLU, _scope_: 3}"] * 2),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_of_checks_says_what_fresh_ones_say(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, starter: Starter
) -> None:
    files, configs = SEQUENCES[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    rest = DIGITS.read_text()
    store = os.environ["XDG_CACHE_HOME"]
    fresh: dict[str, object] = {}
    for number, config in enumerate(dict.fromkeys(configs)):
        kept = rest[: rest.index("model:")] + rest[rest.index("loss:") :] if "model:" in config else rest
        kept = kept[: kept.index("hooks:")] + kept[kept.index("vis:") :]
        (tmp_path / f"{number}.yaml").write_text(f"{config}\n{kept}")
        [fresh[config]] = starter.launch(check, tmp_path, 1, f"{number}.yaml", "--fresh", store=store)
    numbers = {config: number for number, config in enumerate(fresh)}
    for place, config in enumerate(configs):
        path = f"{numbers[config]}.yaml"
        if place + 1 < len(configs):
            [answer] = starter.launch(check, tmp_path, 1, path, store=store)
        else:  # the last one is a fresh interpreter, without torch until it is wanted
            program = "import sys; from treenail.adapters.cli import main; sys.exit(main(sys.argv[1:]))"
            command = [sys.executable, "-c", program, "check", path]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            answer = [done.returncode, done.stderr]
        assert answer == fresh[config]
    assert all(answer[0] in (0, 2) and "not stored" not in answer[1] for answer in fresh.values())  # type: ignore[index]  # JSON of check's


def test_modules_of_one_name_beside_two_configs_are_not_confused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = DIGITS.read_text()
    rest = rest[: rest.index("model:")] + rest[rest.index("loss:") :]
    for folder, parameter in (("a", "width"), ("b", "height")):
        (tmp_path / folder).mkdir()
        head = "from torch import nn\nclass M(nn.Identity):\n"
        (tmp_path / folder / "same_name.py").write_text(f"{head}    def __init__(self, {parameter}: int): ...\n")
        config = f"imports: [same_name]\nmodel: {{type: 'same_name:M', {parameter}: 1}}\n"
        (tmp_path / folder / "run.yaml").write_text(config + rest)
    for _ in range(2):
        checker = ConfigChecker()
        for folder in ("a", "b", "a"):
            checker.check(Source(tmp_path / folder / "run.yaml"))
    assert capsys.readouterr().err == ""


MODEL = "from torch import nn\nclass M(nn.Identity):\n    def __init__(self, {}: int): ...\n"


def test_a_module_that_comes_before_the_stored_one_is_noticed(tmp_path: Path, starter: Starter) -> None:
    rest = DIGITS.read_text()
    rest = rest[: rest.index("model:")] + rest[rest.index("loss:") :]
    (tmp_path / "shadowed.py").write_text(MODEL.format("width"))
    (tmp_path / "run.yaml").write_text(f"imports: [shadowed]\nmodel: {{type: 'shadowed:M', width: 1}}\n{rest}")
    store = os.environ["XDG_CACHE_HOME"]
    for _ in range(2):
        assert starter.launch(check, tmp_path, 1, "run.yaml", store=store) == [[0, ""]]
    (tmp_path / "shadowed").mkdir()  # a package wins over a module of its name
    (tmp_path / "shadowed" / "__init__.py").write_text(MODEL.format("height"))
    [found] = starter.launch(check, tmp_path, 1, "run.yaml", store=store)
    assert isinstance(found, list)
    assert found[0] == 2
    assert "M takes no 'width'" in found[1]


def test_an_enum_whose_values_cannot_be_written_is_frozen_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_enum.py").write_text(
        "from enum import Enum\nfrom torch import nn\nclass Act(Enum):\n    RELU = nn.ReLU\n"
        "class Net(nn.Identity):\n    def __init__(self, act: Act): super().__init__()\n"
    )
    monkeypatch.chdir(tmp_path)
    rest = DIGITS.read_text()
    rest = rest[: rest.index("model:")] + rest[rest.index("loss:") :]
    config = tmp_path / "run.yaml"
    config.write_text(f"imports: [named_enum]\nmodel: {{type: 'named_enum:Net', act: RELU}}\n{rest}")
    assert "spec(Net)(act=Act.RELU)" in freeze(Source(config), Catalog())
