"""The laws of a `Metric`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from treenail.contracts.laws._support import accepted, examples
from treenail.kernel import Metric, TrainingError

ROWS = 12
SEEDS = st.integers(0, 2**16)
CUTS = st.lists(st.integers(0, ROWS), max_size=5).map(sorted)
"""Where data are cut into batches; two cuts in one place give an empty batch."""


class MetricLaws(ABC):
    """What every metric obeys: subclass it, define `make` and `data`, and let pytest collect the subclass.

    Attributes:
        exact: Results are equal to the last bit however data are split and ordered; else within `tolerance`.
        ordered: The order of samples may change results.
        tolerance: Relative, and absolute for values near 0, where results are not exact.
        dtypes: What the outputs may be besides float32; none where they are no floating-point numbers.
    """

    exact: bool = True
    ordered: bool = False
    tolerance: float = 1e-9
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float16, torch.bfloat16)

    @abstractmethod
    def make(self) -> Metric:
        """Return a metric, always of the same kind."""

    @abstractmethod
    def data(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return outputs [rows, …], float32 where they are scores, and targets [rows, …] that the metric takes."""

    def drawn(self, seed: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
        """Return data that follow from a seed."""
        return self.data(rows, torch.Generator().manual_seed(seed))

    def measured(
        self, outputs: Tensor, targets: Tensor, cuts: Sequence[int] = (), metric: Metric | None = None
    ) -> dict[str, float]:
        """Return what a metric, a new one when None, says of data that it is given in batches."""
        metric = self.make() if metric is None else metric
        for begin, end in zip([0, *cuts], [*cuts, len(targets)], strict=True):
            with accepted(f"a batch of {end - begin} samples"):
                metric.update(outputs[begin:end], targets[begin:end])
        with accepted(f"compute() after {len(targets)} samples"):
            return dict(metric.compute())

    def assert_same(self, found: Mapping[str, float], expected: Mapping[str, float], when: str) -> None:
        """Check that results are equal, as far as they are exact."""
        assert list(found) == list(expected), f"the results are {list(found)} {when}, and {list(expected)} else"
        for name, value in expected.items():
            same = found[name] == value or (math.isnan(found[name]) and math.isnan(value))
            near = not self.exact and math.isclose(found[name], value, rel_tol=self.tolerance, abs_tol=self.tolerance)
            assert same or near, f"'{name}' is {found[name]!r} {when}, and {value!r} else"

    @given(seed=SEEDS, cuts=CUTS)
    @examples(30)
    def test_any_split_gives_the_same(self, seed: int, cuts: list[int]) -> None:
        """Results do not depend on how data were split into batches, empty ones included."""
        outputs, targets = self.drawn(seed)
        found = self.measured(outputs, targets, cuts)
        self.assert_same(found, self.measured(outputs, targets), f"of batches cut at {cuts}")

    @given(seed=SEEDS, order=st.permutations(range(ROWS)))
    @examples(20)
    def test_any_order_gives_the_same(self, seed: int, order: list[int]) -> None:
        """Results do not depend on the order of samples, unless the metric is declared ordered."""
        if self.ordered:
            return
        outputs, targets = self.drawn(seed)
        found = self.measured(outputs[order], targets[order], [ROWS // 3])
        self.assert_same(found, self.measured(outputs, targets), f"of samples in the order {order}")

    @given(seed=SEEDS)
    @examples(10)
    def test_reset_forgets(self, seed: int) -> None:
        """After `reset` a metric says what a new one does, whatever it saw and computed."""
        used = self.make()
        self.measured(*self.drawn(seed + 1), metric=used)
        for when in ("after a reset", "after a second pass and a reset"):
            used.reset()
            found = self.measured(*self.drawn(seed), metric=used)
            self.assert_same(found, self.measured(*self.drawn(seed)), when)

    def test_of_nothing_there_is_no_result(self) -> None:
        """Without a sample `compute` raises a TrainingError, or gives NaN; never a number that could be taken for a result."""
        used, emptied = self.make(), self.make()
        self.measured(*self.drawn(1), metric=used)
        used.reset()
        outputs, targets = self.drawn(1)
        with accepted("a batch without samples"):
            emptied.update(outputs[:0], targets[:0])
        for what, metric in (
            ("a new metric", self.make()),
            ("one after reset()", used),
            ("one of no samples", emptied),
        ):
            try:
                found = dict(metric.compute())
            except TrainingError:
                continue
            except Exception as error:
                raise AssertionError(f"{what} raised {type(error).__name__} ({error}), not a TrainingError") from error
            numbers = {name: value for name, value in found.items() if not math.isnan(value)}
            assert not numbers, f"{what} gives {numbers}"

    @given(seed=SEEDS, rows=st.integers(1, ROWS))
    @examples(15)
    def test_results_are_numbers_by_name(self, seed: int, rows: int) -> None:
        """Results are Python's floats under names that are the same for any data, so that curves and rules find them."""
        found, names = self.measured(*self.drawn(seed, rows)), list(self.measured(*self.drawn(0)))
        assert found, "there is no result"
        assert list(found) == names, f"the results of {rows} samples are {list(found)}, those of {ROWS} are {names}"
        for name, value in found.items():
            assert isinstance(name, str), f"a result has the name {name!r}"
            assert name, "a result has an empty name"
            assert type(value) in (float, int), f"'{name}' is a {type(value).__name__}, not a float"

    @given(seed=SEEDS, cut=st.integers(1, ROWS - 1))
    @examples(15)
    def test_compute_leaves_the_state(self, seed: int, cut: int) -> None:
        """`compute` gives the same twice, and samples after it are added to those before it."""
        outputs, targets = self.drawn(seed)
        metric = self.make()
        first = self.measured(outputs[:cut], targets[:cut], metric=metric)
        with accepted("a second compute()"):
            again = dict(metric.compute())
        self.assert_same(again, first, "at a second compute()")
        found = self.measured(outputs[cut:], targets[cut:], metric=metric)
        self.assert_same(found, self.measured(outputs, targets, [cut]), f"with a compute() after {cut} samples")

    @given(seed=SEEDS)
    @examples(10)
    def test_the_dtype_of_outputs_does_not_matter(self, seed: int) -> None:
        """The same numbers in another dtype give the same results, within 1e-5: nothing is summed in 16 bits."""
        outputs, targets = self.drawn(seed, 40 * ROWS)
        if not outputs.is_floating_point():
            return
        common = outputs.to(torch.bfloat16).to(torch.float16).float()  # has a form in all of them
        for dtype in self.dtypes:
            kept = common if dtype is not torch.bfloat16 else common.to(dtype).float()
            found, expected = self.measured(kept.to(dtype), targets, [ROWS]), self.measured(kept, targets, [ROWS])
            for name, value in expected.items():
                near = math.isclose(found[name], value, rel_tol=1e-5, abs_tol=1e-5)
                assert near, f"'{name}' is {found[name]!r} of {dtype}, and {value!r} of the same in float32"

    @given(seed=SEEDS)
    @examples(10)
    def test_arguments_are_only_read(self, seed: int) -> None:
        """`update` changes neither outputs nor targets, and what becomes of them afterwards does not change results."""
        outputs, targets = self.drawn(seed)
        expected = self.measured(outputs.clone(), targets.clone())
        before, metric = (outputs.clone(), targets.clone()), self.make()
        metric.update(outputs, targets)
        same = torch.equal(outputs, before[0]) and torch.equal(targets, before[1])
        assert same, "update() changed its arguments"
        outputs.copy_(outputs.flip(0))
        targets.zero_()
        self.assert_same(dict(metric.compute()), expected, "after the tensors were used for something else")

    @given(seed=SEEDS)
    @examples(5)
    def test_metrics_are_independent(self, seed: int) -> None:
        """What one metric sees, another one of its kind does not."""
        one, other = self.make(), self.make()
        self.measured(*self.drawn(seed + 1), metric=other)
        found = self.measured(*self.drawn(seed), metric=one)
        other.reset()
        self.assert_same(dict(one.compute()), found, "after another metric was reset")
        self.assert_same(found, self.measured(*self.drawn(seed)), "beside another metric")
