"""Compiled models train as uncompiled ones but for rounding, and their checkpoints have the names of the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.processes import Starter
from treenail.adapters.parallel import bare, data_parallel, without_gradient_sync
from treenail.adapters.parallel.compiling import compiled
from treenail.adapters.parallel.recompute import recompute
from treenail.kernel import ConfigError

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")


class Net(nn.Module):
    def __init__(self, halting: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.second = nn.Linear(16, 3)
        self.halting = halting

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.first(inputs)).tanh()
        if self.halting:
            torch._dynamo.graph_break()
        outputs: Tensor = self.second(hidden)
        return outputs


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = Net()
    return module, torch.optim.AdamW(module.parameters(), lr=0.01)


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 6, generator=generator) for size in sizes]


def train(called: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, inputs: list[Tensor]) -> None:
    for each in inputs:
        optimizer.zero_grad()
        called(each).square().mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimizer.step()


def assert_close(found: nn.Module, expected: nn.Module) -> None:
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-5)


def test_training_is_that_of_the_module_and_names_stay() -> None:
    module, optimizer = made()
    called = compiled(module, fullgraph=True)
    assert bare(called) is module
    train(called, optimizer, batches(8, 8, 8, 8))
    expected, its_optimizer = made()
    train(expected, its_optimizer, batches(8, 8, 8, 8))
    assert_close(module, expected)
    called.eval()
    torch.testing.assert_close(called(batches(8)[0]), expected.eval()(batches(8)[0]), rtol=1e-4, atol=1e-5)


def test_batches_of_any_later_size_use_what_was_compiled() -> None:
    module, optimizer = made()
    called = compiled(module)
    train(called, optimizer, batches(8, 8, 5))
    with torch.compiler.set_stance("fail_on_recompile"):
        train(called, optimizer, batches(8, 8, 5, 7, 3, 32))
    expected, its_optimizer = made()
    train(expected, its_optimizer, [*batches(8, 8, 5), *batches(8, 8, 5, 7, 3, 32)])
    assert_close(module, expected)


def test_sizes_are_compiled_one_by_one_where_they_are_static_and_once_where_they_are_dynamic() -> None:
    module, optimizer = made()
    called = compiled(module, dynamic=True)
    train(called, optimizer, batches(8))
    with torch.compiler.set_stance("fail_on_recompile"):
        train(called, optimizer, batches(5, 3))
    torch._dynamo.reset()
    called = compiled(module, dynamic=False)
    train(called, optimizer, batches(8, 5))
    with torch.compiler.set_stance("fail_on_recompile"):
        train(called, optimizer, batches(5, 8))
        with pytest.raises(RuntimeError, match="recompile"):
            train(called, optimizer, batches(3))


def test_a_resumed_training_goes_on_bit_for_bit() -> None:
    module, optimizer = made()
    train(compiled(module), optimizer, batches(8, 8, 8, 8))
    first, its_optimizer = made()
    train(compiled(first), its_optimizer, batches(8, 8, 8, 8)[:2])
    torch._dynamo.reset()  # as a new process
    resumed, next_optimizer = made()
    resumed.load_state_dict(first.state_dict())
    next_optimizer.load_state_dict(its_optimizer.state_dict())
    train(compiled(resumed), next_optimizer, batches(8, 8, 8, 8)[2:])
    torch.testing.assert_close(resumed.state_dict(), module.state_dict(), rtol=0, atol=0)


def test_autocast_is_compiled_too() -> None:
    module, optimizer = made()
    called = compiled(module, fullgraph=True)
    expected, its_optimizer = made()
    for each, steps in ((called, optimizer), (expected, its_optimizer)):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = each(batches(8)[0])
        assert outputs.dtype == torch.bfloat16
        outputs.float().square().mean().backward()
        steps.step()
    torch.testing.assert_close(
        [each.grad for each in module.parameters()], [each.grad for each in expected.parameters()], rtol=0.1, atol=0.01
    )


def test_recomputed_parts_are_compiled_with_the_rest() -> None:
    module, optimizer = made()
    called = compiled(recompute(module, classes=("LayerNorm",)), fullgraph=True)
    train(called, optimizer, batches(8, 8))
    expected, its_optimizer = made()
    train(expected, its_optimizer, batches(8, 8))
    assert_close(module, expected)


def test_what_is_not_one_graph_is_refused_where_one_is_asked_for() -> None:
    module = Net(halting=True)
    inputs = batches(8)[0]
    torch.testing.assert_close(compiled(module)(inputs), module(inputs))
    torch._dynamo.reset()
    with pytest.raises(Exception, match="graph_break"):
        compiled(module, fullgraph=True)(inputs)


def train_on_ranks(directory: Path) -> None:
    """Train two models that accumulate over two micro-batches, one of them compiled."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    found = []
    for wrap in (compiled, lambda module: module):
        module, optimizer = made()
        called = wrap(data_parallel(module))
        for inputs in batches(8, 8):
            optimizer.zero_grad()
            first, second = inputs[dist.get_rank() :: 2].chunk(2)
            with without_gradient_sync(called):
                called(first).square().sum().backward()
            called(second).square().sum().backward()
            optimizer.step()
        assert bare(called) is module
        found.append(module)
    assert_close(*found)
    dist.barrier()  # the first rank keeps what the others meet at
    dist.destroy_process_group()


def test_ranks_train_a_compiled_model_as_it_was(tmp_path: Path, starter: Starter) -> None:
    starter.launch(train_on_ranks, tmp_path, 2)


def compile_without_compiler(directory: Path) -> str:
    torch._inductor.config.cpp.cxx = (None, str(directory / "none"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory / "cache")  # where nothing has been compiled before
    with pytest.raises(ConfigError) as caught:
        compiled(nn.Linear(2, 1))
    return str(caught.value)


def test_without_a_compiler_the_error_says_so(tmp_path: Path, starter: Starter) -> None:
    (said,) = starter.launch(compile_without_compiler, tmp_path, 1)
    assert isinstance(said, str)
    assert "torch.compile makes no code for cpu here" in said
    assert "install a C++ compiler" in said
