"""Recomputed activations: the same gradients to the bit, from less memory, whatever the module is wrapped in."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor

from tests.processes import Starter
from treenail.adapters.checkpoint import freeze
from treenail.adapters.parallel import bare, data_parallel, fully_sharded
from treenail.adapters.parallel.recompute import recompute
from treenail.kernel import TrainingError

WIDTH = 16


class Block(nn.Module):
    """What dropout draws and a batch normalisation counts, with arguments of every kind."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.norm = nn.BatchNorm1d(4 * WIDTH) if norm else nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, inputs: Tensor, scale: float = 1.0, *, shift: Tensor | None = None) -> Tensor:
        hidden = self.drop(self.norm(self.up(inputs)).relu())
        outputs: Tensor = inputs + scale * self.down(hidden)
        return outputs if shift is None else outputs + shift


class Net(nn.Module):
    def __init__(self, norm: bool = True, depth: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(norm) for _ in range(depth)])
        self.shift = nn.Parameter(torch.linspace(-1, 1, WIDTH))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        shift = self.shift.tanh()
        for block in self.blocks:
            inputs = block(inputs, 0.5, shift=shift)
        outputs: Tensor = self.head(inputs)
        return outputs


CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "class": {"classes": ("Block",)},
    "name": {"modules": ("blocks.1", "blocks.3.up")},
    "pattern": {"modules": ("blocks.*",)},
    "one in another": {"classes": ("Block", "Linear"), "modules": ("blocks.*",)},
}


def made(choice: str | None = None, *, norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    module = Net(norm)
    if choice is not None:
        assert recompute(module, **CHOICES[choice]) is module
    return module


def train(
    module: nn.Module,
    called: Callable[[Tensor], Tensor] | None = None,
    around: Callable[[], torch.autocast] | None = None,
    steps: int = 3,
) -> list[Tensor]:
    """Return gradients of each step, and what the module is at the end."""
    called = module if called is None else called
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    found: list[Tensor] = []
    for _ in range(steps):
        inputs = torch.randn(8, WIDTH)
        optimizer.zero_grad()
        if around is None:
            loss = called(inputs).square().mean()
        else:
            with around():
                loss = called(inputs).square().mean()
        loss.backward()
        found += [each.grad.clone() for each in module.parameters() if each.grad is not None]
        optimizer.step()
    found += [each.clone() for each in module.state_dict().values()]
    assert all(bool(each.isfinite().all()) for each in found)
    return [*found, torch.get_rng_state()]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("choice", CHOICES)
def test_gradients_statistics_and_random_numbers_are_those_of_the_module_as_it_was(choice: str) -> None:
    assert_same(train(made(choice)), train(made()))


def test_a_backward_pass_in_parts_and_accumulated_gradients_are_the_same() -> None:
    def gradients(module: nn.Module) -> list[Tensor]:
        torch.manual_seed(2)
        losses = [module(torch.randn(8, WIDTH)).square().sum() for _ in range(3)]  # several passes before one back
        for loss in reversed(losses):
            loss.backward(retain_graph=loss is losses[0])
        losses[0].backward()
        return [*(each.grad for each in module.parameters() if each.grad is not None), *module.buffers()]

    assert_same(gradients(made("class")), gradients(made()))


def test_autocast_is_that_of_the_forward_pass() -> None:
    def around() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    expected = train(made(), around=around)
    assert_same(train(made("class"), around=around), expected)
    assert not all(map(torch.equal, expected, train(made())))


def kept_bytes(module: nn.Module, inputs: Tensor) -> int:
    """Return the most bytes of activations that wait for the backward pass, which is run."""
    parameters = {each.data_ptr() for each in module.parameters()}
    waiting: dict[int, int] = {}
    most = 0

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal most
            self.tensor = tensor
            storage = tensor.untyped_storage()
            self.counted = storage.data_ptr() not in parameters and storage.nbytes() > 0
            if self.counted:
                waiting[id(self)] = tensor.numel() * tensor.element_size()
                most = max(most, sum(waiting.values()))

        def __del__(self) -> None:
            waiting.pop(id(self), None)

    with saved_tensors_hooks(Held, lambda held: held.tensor):
        loss = module(inputs).square().sum()
        loss.backward()
    return most


def test_at_most_one_block_has_its_activations_in_memory() -> None:
    inputs = torch.randn(64, WIDTH)
    whole, recomputed = kept_bytes(made(), inputs), kept_bytes(made("class"), inputs)
    block = kept_bytes(Block(), inputs)
    assert whole > 3.5 * block
    assert recomputed < 1.2 * block + 4 * inputs.nbytes + 4096
    assert recomputed < kept_bytes(made("name"), inputs) < whole


def test_evaluation_and_passes_without_gradients_compute_once() -> None:
    module = made("class")
    calls = []
    module.get_submodule("blocks.0.up").register_forward_hook(lambda *_: calls.append(1))
    inputs = torch.randn(8, WIDTH)
    module(inputs).sum().backward()
    assert len(calls) == 2
    calls.clear()
    with torch.no_grad():
        module(inputs)
    assert len(calls) == 1
    module.eval()
    expected = made().eval()
    expected.load_state_dict(module.state_dict())
    assert torch.equal(module(inputs), expected(inputs))
    module(inputs).sum().backward()
    assert len(calls) == 3


def test_names_classes_and_signatures_stay() -> None:
    module, plain = made("class"), made()
    assert list(module.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in module.named_modules()] == [name for name, _ in plain.named_modules()]
    assert [type(each) for each in module.modules()] == [type(each) for each in plain.modules()]
    assert inspect.signature(module.get_submodule("blocks.0").forward) == inspect.signature(Block().forward)
    module.load_state_dict(plain.state_dict())
    freeze(module.state_dict())


def test_copies_compute_with_their_own_weights() -> None:
    module = made("class")
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same(train(module), train(made()))  # what the copy was made of changes
        recompute(copied, **CHOICES["class"])  # once more is once
        assert_same(train(copied), train(made()))
        module = made("class")


def test_an_input_that_the_module_changes_in_place_is_an_error_and_no_wrong_gradient() -> None:
    class Doubling(nn.Module):
        def forward(self, *, values: Tensor) -> Tensor:
            return values.mul_(2).square()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Doubling()

        def forward(self, values: Tensor) -> Tensor:
            squares: Tensor = self.inner(values=values * 1)
            return squares

    values = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        recompute(Outer(), modules=("inner",))(values).sum().backward()


class Counter(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.count: Tensor
        self.in_place = in_place

    def forward(self, inputs: Tensor) -> Tensor:
        if self.in_place:
            self.count += 1
        else:
            self.count = self.count + 1
        return inputs * self.count


@pytest.mark.parametrize("in_place", [True, False])
def test_a_buffer_that_would_be_changed_twice_is_refused(in_place: bool) -> None:
    module = recompute(nn.Sequential(nn.Linear(2, 2), Counter(in_place)), classes=("Counter",))
    with pytest.raises(TrainingError, match="forward pass of a Counter changes its buffer 'count'"):
        module(torch.ones(1, 2))


def test_instance_norms_with_statistics_count_once_too() -> None:
    def run(chosen: bool) -> list[Tensor]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True)))
        if chosen:
            recompute(module, modules=("1",))
        module(torch.randn(4, 2, 5)).square().sum().backward()
        return [*module.buffers(), *(each.grad for each in module.parameters() if each.grad is not None)]

    assert_same(run(chosen=True), run(chosen=False))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"classes": ("Blok",)}, r"Net has no module of the class 'Blok'; did you mean 'Block'\?"),
        ({"modules": ("block.0",)}, r"Net has no module that matches 'block.0'; did you mean 'blocks.0'\?"),
        ({"modules": ("*.0.*.x",)}, r"Net has no module that matches '\*.0.\*.x'; there are blocks, blocks.0,"),
        ({"classes": ("Net",)}, r"no module of the class 'Net'; did you mean|there are"),
        ({"modules": ("blocks",)}, "'blocks' is a ModuleList, which is not called itself; name what it holds"),
        ({"classes": ("ModuleList",)}, "'ModuleList' is a ModuleList, which is not called itself"),
        ({}, "nothing is chosen to be recomputed"),
    ],
)
def test_a_name_that_chooses_nothing_is_an_error(chosen: dict[str, tuple[str, ...]], message: str) -> None:
    module = Net()
    with pytest.raises(ValueError, match=message):
        recompute(module, **chosen)


@pytest.mark.parametrize("argument", ["classes", "modules"])
def test_one_text_is_not_read_as_letters(argument: str) -> None:
    with pytest.raises(TypeError, match=f"{argument} is the text 'Block': write a list of one"):
        recompute(Net(), **{argument: "Block"})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("choice", ["class", "one in another"])
def test_modes_that_change_between_the_passes_change_no_gradient(choice: str) -> None:
    def gradients(module: nn.Module) -> list[Tensor]:
        torch.manual_seed(3)
        module.get_submodule("blocks.1.drop").eval()
        loss = module(torch.randn(8, WIDTH)).square().sum()
        module.eval()
        module.get_submodule("blocks.1.drop").train()
        loss.backward()
        assert [name for name, part in module.named_modules() if part.training] == ["blocks.1.drop"], "they stay"
        return [*(each.grad for each in module.parameters() if each.grad is not None), *module.buffers()]

    assert_same(gradients(made(choice)), gradients(made()))


class Halting(Block):
    """What torch compiles in parts."""

    def forward(self, inputs: Tensor, scale: float = 1.0, *, shift: Tensor | None = None) -> Tensor:
        torch._dynamo.graph_break()
        return super().forward(inputs, scale, shift=shift)


@pytest.mark.parametrize("kind", ["whole", "with statistics", "in parts"])
def test_a_compiled_module_recomputes_and_counts_once(kind: str) -> None:
    torch._dynamo.reset()
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(str(graph.graph))
        compile_eagerly: Callable[..., Callable[..., object]] = torch._dynamo.lookup_backend("aot_eager")
        return compile_eagerly(graph, inputs)

    def module(choice: str | None = None) -> nn.Module:
        net = made(norm=kind != "whole")
        for each in net.modules():
            if isinstance(each, nn.Dropout):
                each.p = 0.0  # compiled dropout draws other numbers
            if kind == "in parts" and isinstance(each, Block):
                each.__class__ = Halting
        return net if choice is None else recompute(net, **CHOICES[choice])

    found = module("pattern")
    called = torch.compile(found, backend=backend, fullgraph=kind != "in parts")
    torch.testing.assert_close(train(found, called), train(module()))
    assert any("tag_activation_checkpoint" in graph for graph in graphs) == (kind != "in parts")
    calls: list[int] = []
    found.get_submodule("blocks.0.up").register_forward_hook(lambda *_: calls.append(1))
    found(torch.randn(8, WIDTH)).sum().backward()
    assert len(calls) == 2


def test_a_recomputed_module_is_exported() -> None:
    module = made("class").eval()
    inputs = torch.randn(8, WIDTH)
    program = torch.export.export(module, (inputs,))
    torch.testing.assert_close(program.module()(inputs), module(inputs))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "data parallel": data_parallel,
    "normalised together": lambda module: data_parallel(module, sync_batchnorm=True),
    "sharded": lambda module: fully_sharded(module, classes=("Block",)),
    "sharded inside": lambda module: fully_sharded(module, classes=("Linear",), reshard_after_forward=True),
    "sharded in half precision": lambda module: fully_sharded(module, classes=("Block",), param_dtype="bfloat16"),
}


def train_on_ranks(directory: Path) -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    for kind, wrap in WRAPPERS.items():
        found = []
        for choice in ("class", None):
            module = made(choice, norm=not kind.startswith("sharded"))
            names = list(module.state_dict())
            called = wrap(module)
            found.append([each.full_tensor() if isinstance(each, DTensor) else each for each in train(called)])
            assert list(bare(called).state_dict()) == names
        assert_same(*found)
    dist.barrier()  # the first rank keeps what the others meet at
    dist.destroy_process_group()


def test_ranks_train_as_without(tmp_path: Path, starter: Starter) -> None:
    starter.launch(train_on_ranks, tmp_path, 2)
