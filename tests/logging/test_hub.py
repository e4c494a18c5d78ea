"""The hub: the seed's examples, what checkpoints keep, and instances that stay in their context."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from typing import TypeVar

import numpy as np
import pytest
import torch

from treenail.adapters.logging.compat import ConflictError, HistoryBuffer, KindError, MessageHub, UnknownNameError
from treenail.kernel import StateError, Stateful

T = TypeVar("T")


def alone(function: Callable[[], T]) -> T:
    """Call a function in a context of its own, where there are no hubs yet."""
    return Context().run(function)


def test_scalars_are_those_of_the_guide() -> None:
    hub = MessageHub("task")
    hub.update_scalar("train/loss", 1, 1)
    assert hub.get_scalar("train/loss").current() == 1
    hub.update_scalar("train/loss", 3, 1)
    assert hub.get_scalar("train/loss").mean() == 2
    hub.update_scalar("train/lr", 0.1, 1)
    hub.update_scalars({"train/time": {"value": 0.1, "count": 1}, "train/data_time": {"value": 0.1, "count": 1}})
    assert hub.get_scalar("train/time").current() == 0.1
    assert list(hub.log_scalars) == ["train/loss", "train/lr", "train/time", "train/data_time"]
    hub.update_scalar("train/a", 100)
    hub.update_scalars({"train/b": 1, "train/c": 2})
    assert [hub.get_scalar(f"train/{name}").current() for name in "abc"] == [100, 1, 2]


def test_information_is_replaced_as_in_the_guide() -> None:
    hub = MessageHub("task")
    hub.update_info("iter", 1)
    assert hub.get_info("iter") == 1
    hub.update_info("iter", 2)
    assert hub.get_info("iter") == 2
    hub.update_info_dict({"epoch": 3, "meta": {"repo": "mmdetection"}})
    assert hub.get_info("epoch") == 3
    assert hub.get_info("max_epochs", 12) == 12
    assert hub.pop_info("epoch") == 3
    assert hub.pop_info("epoch") is None


def test_components_find_the_hub_by_its_name_as_in_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    class Printer:
        def __init__(self, name: str) -> None:
            self.hub = MessageHub.get_instance(name)

        def run(self) -> None:
            print(f"Learning rate is {self.hub.get_scalar('train/lr').current()}")
            print(f"loss is {self.hub.get_scalar('train/loss').current()}")
            print(f"meta {self.hub.get_info('meta')}")

    class Updater:
        def __init__(self, name: str) -> None:
            self.hub = MessageHub.get_instance(name)

        def run(self) -> None:
            self.hub.update_scalar("train/loss", 0.1)
            self.hub.update_info("meta", {"experiment": "retinanet_r50_caffe_fpn_1x_coco.py", "repo": "mmdetection"})
            self.hub.update_scalar("train/lr", 0.001)

    def run() -> None:
        printer = Printer("name")
        Updater("name").run()
        printer.run()

    alone(run)
    assert capsys.readouterr().out.splitlines() == [
        "Learning rate is 0.001",
        "loss is 0.1",
        "meta {'experiment': 'retinanet_r50_caffe_fpn_1x_coco.py', 'repo': 'mmdetection'}",
    ]


def test_the_current_hub_is_the_one_made_last() -> None:
    def check() -> None:
        assert not MessageHub.check_instance_created("mmengine")
        first = MessageHub.get_current_instance()
        assert first.instance_name == "mmengine"
        second = MessageHub.get_instance("second", runtime_info={"iter": 1})
        assert MessageHub.get_instance("mmengine") is first  # which does not make it the current one
        assert MessageHub.get_current_instance() is second
        assert MessageHub.check_instance_created("second")
        with pytest.raises(ConflictError, match="'second' is there already and takes no runtime_info any more"):
            MessageHub.get_instance("second", runtime_info={})

    alone(check)


def test_hubs_belong_to_their_context() -> None:
    alone(lambda: MessageHub.get_instance("of a context"))
    assert not MessageHub.check_instance_created("of a context")

    def in_thread() -> None:
        MessageHub.get_instance("of a context")
        thread = threading.Thread(target=lambda: found.append(MessageHub.check_instance_created("of a context")))
        thread.start()
        thread.join()
        sharing = threading.Thread(
            target=copy_context().run, args=(lambda: found.append(MessageHub.check_instance_created("of a context")),)
        )
        sharing.start()
        sharing.join()

    found: list[bool] = []
    alone(in_thread)
    assert found == [False, True]


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.array([2.0]), torch.tensor(2.0), torch.tensor([[2.0]], requires_grad=True)]
)
def test_single_numbers_of_all_kinds_are_taken(value: float) -> None:
    hub = MessageHub("task")
    hub.update_scalar("train/loss", value)
    found = hub.get_scalar("train/loss").current()
    assert (found, type(found)) == (2, int if isinstance(value, int) else float)


@pytest.mark.parametrize("value", [torch.ones(2), np.ones(3), "1", None, torch.tensor(1j)])
def test_what_is_no_number_is_refused_and_leaves_no_trace(value: float) -> None:
    hub = MessageHub("task")
    with pytest.raises(KindError, match="'train/loss'"):
        hub.update_scalar("train/loss", value)
    # mmengine notes whether a name is to be resumed before it looks at the value.
    assert hub.state_dict() == {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    hub.update_scalar("train/loss", 1, resumed=False)


def test_a_name_is_resumed_or_not_once_and_for_all() -> None:
    hub = MessageHub("task")
    hub.update_scalar("loss", 0.1)
    # The message of mmengine 0.10.7 says "{resumed} now": the second half of it is no f-string.
    with pytest.raises(
        AssertionError, match=r"loss used to be True, but got False now\. resumed keys cannot be modified"
    ):
        hub.update_scalar("loss", 0.1, resumed=False)
    with pytest.raises(ConflictError):
        hub.update_info("loss", 1, resumed=False)
    assert len(hub.get_scalar("loss")) == 1


def test_a_state_holds_what_is_to_be_resumed_and_no_objects_of_ours() -> None:
    hub = MessageHub("task")
    hub.update_scalars({"train/loss": 0.5, "train/lr": {"value": 0.1, "count": 8}})
    hub.update_scalar("train/secret", 1, resumed=False)
    hub.update_info("iter", 7)
    hub.update_info("lock", threading.Lock(), resumed=False)
    state = hub.state_dict()
    assert isinstance(hub, Stateful)

    def leaves(value: object) -> Iterator[type]:
        if isinstance(value, dict):
            for each in value.values():
                yield from leaves(each)
        else:
            yield type(value)

    assert set(leaves(state)) == {torch.Tensor, int, bool}
    other = MessageHub("other")
    other.update_info("own", 1)
    other.load_state_dict(state)
    assert list(other.log_scalars) == ["train/loss", "train/lr"]
    assert other.get_scalar("train/lr").mean() == 0.1 / 8
    assert other.runtime_info == {"own": 1, "iter": 7}
    other.update_scalar("train/loss", 1.5)
    assert (other.get_scalar("train/loss").mean(), hub.get_scalar("train/loss").mean()) == (1.0, 0.5)
    with pytest.raises(ConflictError):  # as before it was saved
        other.update_info("iter", 8, resumed=False)


def test_a_state_is_loaded_by_torch_without_trusting_it() -> None:
    """mmengine's checkpoints hold objects of its own, which torch >= 2.6 refuses, so that it cannot resume."""
    hub = MessageHub("task")
    hub.update_scalar("train/loss", 0.5)
    hub.update_info("iter", 7)
    saved = io.BytesIO()
    torch.save(hub.state_dict(), saved)
    other = MessageHub("other")
    other.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    assert (other.get_scalar("train/loss").current(), other.get_info("iter")) == (0.5, 7)


def test_of_a_dict_only_what_is_to_be_resumed_is_taken_and_of_a_hub_all() -> None:
    buffer = HistoryBuffer([1.0], [1])
    state = {
        "log_scalars": {"a": buffer, "b": HistoryBuffer([2.0], [1])},
        "runtime_info": {"c": [3], "d": 4},
        "resumed_keys": {"a": True, "b": False, "c": True, "d": False},
    }
    hub = MessageHub("task")
    hub.load_state_dict(state)
    assert (list(hub.log_scalars), list(hub.runtime_info)) == (["a"], ["c"])
    buffer.update(5.0)  # mmengine 0.10.7 keeps the very buffer, which then changes
    assert hub.get_scalar("a").current() == 1.0
    whole = MessageHub("whole", state["log_scalars"], state["runtime_info"], state["resumed_keys"])  # type: ignore[arg-type]  # of one dict
    hub.load_state_dict(whole)
    assert (list(hub.log_scalars), list(hub.runtime_info)) == (["a", "b"], ["c", "d"])
    whole.update_scalar("b", 9.0, resumed=False)
    assert hub.get_scalar("b").current() == 2.0


def test_a_history_that_is_empty_yet_is_the_one_that_grows() -> None:
    buffer = HistoryBuffer()
    hub = MessageHub("task", {"loss": buffer})
    hub.update_scalar("loss", 1)
    assert hub.get_scalar("loss") is buffer


def test_scalars_are_references_and_information_is_copied() -> None:
    hub = MessageHub("task", {"loss": HistoryBuffer([1], [1])}, {"meta": {"a": [1]}})
    hub.log_scalars["loss"].update(2)
    assert hub.get_scalar("loss").current() == 2
    hub.get_info("meta")["a"].append(2)
    hub.runtime_info["other"] = 1
    assert hub.runtime_info == {"meta": {"a": [1]}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no mapping 'log_scalars'"),
        (
            {"log_scalars": {"a": 1}, "runtime_info": {}, "resumed_keys": {"a": True}},
            r"message_hub\.log_scalars\.a: a int is no history",
        ),
        (
            {"log_scalars": {"a": {}}, "runtime_info": {}, "resumed_keys": {"a": True}},
            r"message_hub\.log_scalars\.a: log_history: expected a tensor",
        ),
    ],
)
def test_another_state_is_refused_by_name(state: dict[str, object], message: str) -> None:
    with pytest.raises(StateError, match=message):
        MessageHub("task").load_state_dict(state)


def test_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match=r"log_scalars\['a'\] is a float"):
        MessageHub("task", {"a": 1.0})  # type: ignore[dict-item]  # the mistake
    with pytest.raises(AssertionError, match="resumed_keys names 'a'"):
        MessageHub("task", resumed_keys={"a": True})
    hub = MessageHub("task")
    with pytest.raises(KeyError, match="the message hub 'task' has no scalar 'a'; there is none yet"):
        hub.get_scalar("a")
    hub.update_info("b", 1)
    with pytest.raises(UnknownNameError, match="no information 'a'; there are b"):
        hub.get_info("a")
    with pytest.raises(AssertionError, match="'a' has count, not value and count"):
        hub.update_scalars({"a": {"count": 1}})
    hub.update_info("lock", threading.Lock())
    with pytest.raises(KindError, match="the information 'lock', a lock, cannot be copied"):
        hub.state_dict()


def test_a_name_stands_for_a_scalar_or_for_information_and_never_for_both() -> None:
    hub = MessageHub("task")
    hub.update_scalar("a", 1)
    hub.update_info("b", "text")
    with pytest.raises(ConflictError, match="'a' is a scalar already; choose another name"):
        hub.update_info("a", "text")
    with pytest.raises(ConflictError, match="'b' is information already"):
        hub.update_scalars({"b": 1})
    assert list(hub.log_scalars) == ["a"]
    assert list(hub.runtime_info) == ["b"]
    hub.pop_info("b")
    hub.update_scalar("b", 1)
