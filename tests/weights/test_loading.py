"""Weights that come into a model: what fits, what is left out, and what is said of it."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.weights.trainings import Points, network, other, run
from treenail.adapters.runtime import train
from treenail.adapters.weights import load_from, load_weights, open_source, rename, suggest_mapping, weights_of
from treenail.contracts import LoadFrom
from treenail.kernel import CheckpointError, ConfigError


def assert_holds(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_a_report_tells_what_was_loaded() -> None:
    model = network()
    report = load_weights(model, {f"module.{name}": tensor for name, tensor in other().items()}, where="a.pt")
    assert_holds(model, other())
    assert report.complete
    assert str(report) == "loaded 9 tensors (38 numbers) from a.pt"


def test_differences_are_told_all_at_once_with_what_to_do() -> None:
    weights = other()
    del weights["0.bias"]
    weights |= {"3.weight": torch.zeros(2, 4), "head.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(network(), weights, where="a.pt")
    told = str(caught.value)
    for part in (
        "a.pt: ",
        "1 missing in the file: 0.bias",
        "1 unexpected, the model has no such: head.weight",
        "3.weight (there float32[2, 4], here float32[1, 4])",
        "strict: false",
        "exclude",
        "allow_shape_mismatch: true",
    ):
        assert part in told, part


def test_a_partial_load_keeps_the_rest_and_reports_it() -> None:
    model, before, weights = network(), network().state_dict(), other()
    del weights["0.bias"]
    weights |= {"3.weight": torch.zeros(2, 4), "head.weight": torch.zeros(1)}
    report = load_weights(model, weights, strict=False, allow_shape_mismatch=True, exclude=("1.*",))
    assert report.missing == ("0.bias",)
    assert report.unexpected == ("head.weight",)
    assert [each.name for each in report.mismatched] == ["3.weight"]
    assert set(report.loaded) == {"0.weight", "3.bias"}
    assert not report.complete
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other()[name] if name in report.loaded else before[name]), name


def test_another_shape_is_an_error_though_names_need_not_match() -> None:
    with pytest.raises(CheckpointError, match=r"3\.weight \(there float32\[2, 4\], here float32\[1, 4\]\)"):
        load_weights(network(), other() | {"3.weight": torch.zeros(2, 4)}, strict=False)


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_which_none_fits_are_an_error_and_a_prefix_is_suggested(strict: bool) -> None:
    weights = {f"backbone.net.{name}": tensor for name, tensor in other().items()}
    with pytest.raises(
        CheckpointError, match=r"none of the weights.*did you mean prefix: backbone\.net,.* 9 of the names"
    ):
        load_weights(network(), weights, strict=strict)
    inner = nn.ModuleDict({"net": network()})
    with pytest.raises(CheckpointError, match=r"revise_keys: \[\['\^', 'net\.'\]\]"):
        load_weights(inner, other(), strict=strict)
    assert load_weights(inner, other(), revise_keys=(("^", "net."),)).complete


def test_a_prefix_takes_what_is_below_it() -> None:
    weights = {f"backbone.{name}": tensor for name, tensor in other().items()} | {"head.weight": torch.ones(1)}
    for prefix in ("backbone", "backbone."):
        model = network()
        report = load_weights(model, weights, prefix=prefix)
        assert_holds(model, other())
        assert report.outside == 1
    with pytest.raises(CheckpointError, match=r"begins with 'bckbone\.'; they begin with backbone, head"):
        load_weights(network(), weights, prefix="bckbone")


def test_reals_are_converted_to_the_models_dtype_and_nothing_else_is() -> None:
    model = network()
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in other().items()}
    report = load_weights(model, halved)
    assert report.converted == (("float16", "float32", 8),)
    assert model.state_dict()["0.weight"].dtype == torch.float32
    for wrong in (torch.zeros(4, dtype=torch.int8), torch.zeros(4, dtype=torch.complex64), torch.zeros(4) > 0):
        with pytest.raises(CheckpointError, match=r"0\.bias \(there .*\[4\], here float32\[4\]\)"):
            load_weights(network(), other() | {"0.bias": wrong})


def test_modules_take_older_states_as_torch_lets_them() -> None:
    weights = OrderedDict(other())
    del weights["1.num_batches_tracked"]
    weights._metadata = {"": {"version": 1}, "1": {"version": 1}}  # type: ignore[attr-defined]  # as torch's states have it
    assert load_weights(network(), weights).complete


def test_two_names_that_become_one_and_patterns_that_fit_nothing_are_told() -> None:
    with pytest.raises(CheckpointError, match=r"'a\.x' and 'b\.x' would both be 'x'"):
        rename({"a.x": 0, "b.x": 0}, revise_keys=((r"^[ab]\.", ""),))
    with pytest.raises(CheckpointError, match=r"'hed\.\*' matches no weight"):
        rename({"head.x": 0}, exclude=("hed.*",))
    with pytest.raises(ConfigError, match="no regular expression"):
        rename({"a": 0}, revise_keys=(("(", ""),))


@settings(deadline=None)
@given(
    names=st.sets(st.from_regex(r"[a-c]{1,2}(\.[a-c]{1,2}){0,2}", fullmatch=True), min_size=1, max_size=8),
    prefix=st.from_regex(r"(x[a-c]?\.){1,2}", fullmatch=True),
    adds=st.booleans(),
)
def test_a_suggested_mapping_makes_all_names_match_where_a_prefix_is_the_difference(
    names: set[str], prefix: str, adds: bool
) -> None:
    longer = {f"{prefix}{name}" for name in names}
    given_names, wanted = (names, longer) if adds else (longer, names)
    found = suggest_mapping(given_names, wanted)
    assert found is not None
    pattern, replacement, count = found
    renamed = rename(dict.fromkeys(given_names), revise_keys=((pattern, replacement),)).weights
    assert count == len(names)
    assert renamed.keys() == wanted


def test_nothing_is_suggested_where_names_match_or_have_nothing_in_common() -> None:
    assert suggest_mapping(["a.b", "a.c"], ["a.b", "a.c"]) is None
    assert suggest_mapping(["a.b"], ["c.d"]) is None


def test_a_run_begins_with_the_weights_and_at_zero(tmp_path: Path) -> None:
    torch.save({"state_dict": other()}, tmp_path / "a.pt")
    settings = LoadFrom(path=str(tmp_path / "a.pt"))
    config = msgspec.structs.replace(run(), load_from=settings)
    summary = train(config, tmp_path / "run")
    assert summary.step == 12
    alone = network()
    load_weights(alone, other())
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    torch.set_num_threads(1)
    for _ in range(3):
        for batch in torch.utils.data.DataLoader(Points(), 2):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.mse_loss(alone(batch[0]), batch[1]))
            optimizer.step()
    trained = weights_of(open_source(tmp_path / "run" / "checkpoints" / "latest"))
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(torch.as_tensor(trained[name]), tensor, rtol=1e-6, atol=1e-7)


def test_a_resumed_run_needs_the_weights_no_more(tmp_path: Path) -> None:
    torch.save(other(), tmp_path / "a.pt")
    config = msgspec.structs.replace(run(), load_from=LoadFrom(path=str(tmp_path / "a.pt")))
    train(config, tmp_path / "run")
    (tmp_path / "a.pt").unlink()
    assert train(config, tmp_path / "run", resume="latest").attempt == 2


def test_a_mistake_in_a_pattern_is_told_where_it_is(tmp_path: Path) -> None:
    torch.save(other(), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=r"load_from\.revise_keys"):
        load_from(network(), LoadFrom(path=str(tmp_path / "a.pt"), revise_keys=(("(", ""),)))


def test_a_sharded_model_gets_its_parts(written: Path) -> None:
    alone = network()
    load_from(alone, LoadFrom(path=str(written / "sharded" / "a.pt"), exclude=("3.bias",), strict=False))
    expected = alone.eval()(torch.ones(2, 3)).flatten()
    for rank in range(2):
        outputs = json.loads((written / "sharded" / f"answer-{rank}.json").read_text())
        torch.testing.assert_close(torch.tensor(outputs), expected)


class Tied(nn.Module):
    """A model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_a_tied_weight_need_not_be_in_the_file_twice() -> None:
    model = Tied()
    report = load_weights(model, {"embedding.weight": torch.ones(5, 3)})
    assert report.complete
    assert torch.equal(model.head.weight, torch.ones(5, 3))
    empty = nn.ParameterDict({"a": torch.ones(0), "b": torch.ones(0)})
    with pytest.raises(CheckpointError, match=r"1 missing in the file: b"):
        load_weights(empty, {"a": torch.ones(0)})


def test_what_is_excluded_need_not_be_in_the_file() -> None:
    weights = other()
    del weights["3.weight"]
    report = load_weights(network(), weights, exclude=("3.*",))
    assert report.missing == ()
    assert report.excluded == ("3.bias", "3.weight")


@pytest.mark.parametrize(
    ("rewritten", "settings"),
    [
        (lambda name: f"module.net.{name}", {}),
        (lambda name: f"backbone.net.{name}", {"prefix": "backbone"}),
        (lambda name: f"_orig_mod.{name}", {}),
        (lambda name: f"module._orig_mod.{name}", {}),
    ],
)
def test_a_suggested_prefix_is_right_as_it_stands(rewritten: object, settings: dict[str, str]) -> None:
    assert callable(rewritten)
    weights = {rewritten(name): tensor for name, tensor in other().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(network(), weights, prefix=settings.get("prefix", ""))
    prefix = str(caught.value).partition("did you mean prefix: ")[2].partition(",")[0]
    assert load_weights(network(), weights, prefix=prefix).complete


@pytest.mark.parametrize(
    ("given_names", "wanted", "mapping"),
    [
        (("net.a.w", "net.b.w"), ("backbone.a.w", "backbone.b.w"), (r"^net\.", "backbone.", 2)),
        (("a._orig_mod.w", "b._orig_mod.c.w"), ("a.w", "b.c.w"), (r"_orig_mod\.", "", 2)),
        (("module.a._orig_mod.w", "module.b.w"), ("a.w", "b.w"), (r"^module\.|_orig_mod\.", "", 2)),
        (("a.module.w", "b.module.w"), ("a.w", "b.w"), (r"module\.", "", 2)),
    ],
)
def test_another_beginning_and_wrappers_inside_are_suggested(
    given_names: tuple[str, ...], wanted: tuple[str, ...], mapping: tuple[str, str, int]
) -> None:
    assert suggest_mapping(given_names, wanted) == mapping
    assert rename(dict.fromkeys(given_names), revise_keys=(mapping[:2],)).weights.keys() == set(wanted)


def test_what_is_no_tensor_is_told_as_such() -> None:
    with pytest.raises(CheckpointError, match=r"0\.bias \(there str, here float32\[4\]\)"):
        load_weights(network(), {**other(), "0.bias": "much"})
    with pytest.raises(CheckpointError, match="a weight's name is 0, no text"):
        load_weights(network(), {0: torch.ones(1)})  # type: ignore[dict-item]  # as an optimizer's state has them
