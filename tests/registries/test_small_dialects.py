"""The dialects of easycore and helios: their documented examples, every form, and their errors."""

import traceback

import pytest

from treenail.adapters.config import Catalog
from treenail.adapters.registries import KindError, RegisteredTwiceError, UnregisteredError, easycore, helios
from treenail.adapters.sampling import RandomSampler
from treenail.adapters.sampling.compat import ResumableRandomSampler
from treenail.kernel import BuildError, Registry, RegistryError, Sampler, SpecError


def test_easycore_registers_under_the_own_name_or_a_given_one() -> None:
    models = easycore.Registry("MODEL")

    @models.register()
    class ResNet50:
        pass

    @models.register("resnet")
    class ResNet:
        pass

    assert models.get("ResNet50") is ResNet50
    assert models.get("resnet") is ResNet
    assert models.registered_names() == ["ResNet50", "resnet"]


def test_easycore_registers_by_plain_calls_and_bare() -> None:
    models = easycore.Registry("MODEL")

    class ResNet50:
        pass

    assert models.register(obj=ResNet50) is ResNet50
    assert models.register("resnet", ResNet50) is ResNet50

    @models.register
    def vgg(depth: int) -> int:
        return depth

    assert vgg(16) == models.get("vgg")(16) == 16
    assert [models.is_registered(name) for name in ("ResNet50", "resnet", "vgg", "VGG")] == [True, True, True, False]
    assert "resnet" in models
    assert "VGG" not in models
    assert len(models) == 3


def test_easycore_a_decorator_used_twice_registers_each_under_its_own_name() -> None:
    models = easycore.Registry("MODEL")
    register = models.register()
    assert register(dict) is dict
    assert register(list) is list
    assert models.registered_names() == ["dict", "list"]


def test_easycore_forgets() -> None:
    models = easycore.Registry("MODEL")
    models.register("resnet", dict)
    models.unregister("resnet")
    assert not models.is_registered("resnet")
    assert len(models) == 0
    with pytest.raises(KeyError, match="no MODEL 'resnet' was registered"):
        models.unregister("resnet")


def test_easycore_errors_are_key_errors_and_ours() -> None:
    models = easycore.Registry("MODEL")
    models.register("resnet", dict)
    with pytest.raises(KeyError) as missing:
        models.get("resnt")
    assert isinstance(missing.value, RegistryError)
    assert str(missing.value) == "unknown MODEL 'resnt'; did you mean 'resnet'?"
    with pytest.raises(RegisteredTwiceError, match="'resnet' is registered twice") as twice:
        models.register("resnet", list)
    assert isinstance(twice.value, KeyError)
    assert models.get("resnet") is dict


def test_easycore_refuses_what_is_no_class_or_function() -> None:
    models = easycore.Registry("MODEL")
    with pytest.raises(KindError, match="3 is no class or function"):
        models.register("three", 3)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(TypeError, match="the name 3 is no text"):
        models.register(3)  # type: ignore[call-overload]  # what the test is about


def test_an_unknown_name_of_an_empty_registry_says_so() -> None:
    with pytest.raises(UnregisteredError, match="nothing is registered: import the module that registers it"):
        easycore.Registry("MODEL").get("resnet")


def test_names_of_nothing_near_are_listed() -> None:
    models = easycore.Registry("MODEL")
    for number in range(10):
        models.register(f"n{number}", dict)
    with pytest.raises(UnregisteredError, match="known are n0, n1, n2, n3, n4, n5, n6, n7 and 2 more"):
        models.get("xyz")


class Numbers:
    def __init__(self, count: int, start: int = 0) -> None:
        if count < 0:
            raise ValueError(f"{count} numbers")
        self.numbers = list(range(start, start + count))


def test_helios_registers_bare_called_and_by_a_plain_call() -> None:
    samplers = helios.Registry("sampler")

    @samplers.register
    class Bare:
        pass

    @samplers.register()
    class Called:
        pass

    assert samplers.register(Numbers) is Numbers
    assert list(samplers) == [("Bare", Bare), ("Called", Called), ("Numbers", Numbers)]
    assert list(samplers.keys()) == ["Bare", "Called", "Numbers"]
    assert "Bare" in samplers
    assert "bare" not in samplers
    assert len(samplers) == 3
    assert samplers.get("Called") is Called


def test_helios_creates_by_name() -> None:
    samplers: helios.Registry[Numbers] = helios.Registry("sampler")
    samplers.register(Numbers)
    assert samplers.create("Numbers", 2, start=5).numbers == [5, 6]


def test_helios_checks_arguments_before_it_calls() -> None:
    called: list[int] = []

    def count(start: int) -> int:
        called.append(start)
        return start

    samplers = helios.Registry("sampler")
    samplers.register(count)
    with pytest.raises(SpecError, match=r"takes no 'strat'; did you mean 'start'\?"):
        samplers.create("count", strat=3)
    with pytest.raises(SpecError, match="missing a required argument: 'start'"):
        samplers.create("count")
    assert called == []


def test_helios_errors() -> None:
    samplers = helios.Registry("sampler")
    samplers.register(Numbers)
    with pytest.raises(RegisteredTwiceError):
        samplers.register(Numbers)
    with pytest.raises(KeyError, match=r"unknown sampler 'numbers'; did you mean 'Numbers'\?"):
        samplers.create("numbers")


def test_an_error_of_a_constructor_keeps_its_traceback() -> None:
    samplers = helios.Registry("sampler")
    samplers.register(Numbers)
    with pytest.raises(BuildError, match="Numbers could not be built: ValueError: -1 numbers") as raised:
        samplers.create("Numbers", -1)
    cause = raised.value.__cause__
    assert isinstance(cause, ValueError)
    assert "__init__" in {frame.name for frame in traceback.extract_tb(cause.__traceback__)}


def test_an_error_of_ours_inside_a_constructor_is_left_alone() -> None:
    def nested() -> object:
        return inner.create("missing")

    inner, outer = helios.Registry("inner"), helios.Registry("outer")
    outer.register(nested)
    with pytest.raises(UnregisteredError, match="unknown inner 'missing'"):
        outer.create("nested")


def test_a_dialect_over_the_kernels_registry_of_a_port_knows_what_configs_know() -> None:
    core: Registry[Sampler] = Registry("sampler")
    for scope, adapter in Catalog().registry("sampler"):
        core.declare(adapter, scope)
    samplers = helios.Registry("sampler", core=core)
    assert isinstance(samplers.create("ResumableRandomSampler", 10, seed=3), ResumableRandomSampler)
    assert "ResumableSequentialSampler" in samplers
    assert "sampling:RandomSampler>" in repr(samplers)
    assert easycore.Registry("sampler", core=core).get("treenail:random") is RandomSampler
    with pytest.raises(RegisteredTwiceError, match="the sampler 'random' is registered twice"):
        easycore.Registry("sampler", core=core).register("random", RandomSampler)
