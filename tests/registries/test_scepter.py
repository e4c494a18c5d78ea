"""The dialect of SCEPTER: its documented example, what a target is given, and its errors."""

from collections import UserDict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pytest

from treenail.adapters.documents import parse_yaml
from treenail.adapters.registries import KindError, RegisteredTwiceError, UnregisteredError
from treenail.adapters.registries.scepter import Registry
from treenail.kernel import BuildError, SpecError


class Config(UserDict[str, object]):
    """A config that is no dict, as SCEPTER's is none."""


def test_a_bare_class_is_buildable() -> None:
    models = Registry("MODELS")

    @models.register_class()
    class ResNet:
        pass

    assert type(models.build(Config({"NAME": "ResNet"}))) is ResNet
    assert type(models.build({"NAME": "ResNet"}, logger="log")) is ResNet


def test_every_form_registers() -> None:
    models = Registry("MODELS")

    @models.register_class
    class Bare:
        pass

    @models.register_class("named")
    class Named:
        pass

    @models.register_function
    def bare(depth: int) -> int:
        return depth

    @models.register_function()
    def called(depth: int) -> int:
        return depth

    @models.register_function("third")
    def named(depth: int) -> int:
        return depth

    assert bare(1) + called(2) + named(3) == 6
    assert [models.get(name) for name in ("Bare", "named", "bare", "called", "third")] == [
        Bare,
        Named,
        bare,
        called,
        named,
    ]
    assert len(models) == 5
    assert "third" in models
    assert "Named" not in models


def test_a_target_gets_the_very_config_and_the_logger_if_it_takes_them() -> None:
    models = Registry("MODELS")

    @models.register_class
    class Net:
        def __init__(self, cfg: object, logger: object = None, scale: float = 1.0) -> None:
            self.given = cfg, logger, scale

    @models.register_function
    def anything(*args: object, **kwargs: object) -> object:
        return args, kwargs

    @models.register_function
    def last(scale: float, config: object) -> object:
        return config

    config = Config({"NAME": "Net", "steps": (step for step in range(3))})
    net = models.build(config, "log", scale=2.0)
    assert net.given == (config, "log", 2.0)
    assert net.given[0] is config
    assert set(config) == {"NAME", "steps"}
    steps = config["steps"]
    assert isinstance(steps, Iterator)
    assert list(steps) == [0, 1, 2]
    wide = {"NAME": "anything", "a": 1}
    assert models.build(wide, "log", scale=2.0) == ((wide,), {"logger": "log", "scale": 2.0})
    models.register_function("first")(lambda cfg, /, depth=3: (cfg, depth))
    models.register_function("rest")(lambda depth, *rest: (depth, rest))
    assert models.build({"NAME": "first"}, depth=4) == ({"NAME": "first"}, 4)
    assert models.build({"NAME": "rest", "depth": 50}) == (50, ())
    late = {"NAME": "last"}
    assert models.build(late, scale=2.0) is late


def test_entries_are_arguments_where_nobody_takes_the_config() -> None:
    models = Registry("MODELS")

    @models.register_function
    def net(depth: int, stages: int = 4) -> tuple[int, int]:
        return depth, stages

    assert models.build({"NAME": "net", "depth": 50}, stages=3) == (50, 3)
    with pytest.raises(SpecError, match=r"takes no 'detph'; did you mean 'depth'\?"):
        models.build({"NAME": "net", "detph": 50})


def test_a_bare_class_refuses_entries_that_nobody_would_read() -> None:
    models = Registry("MODELS")

    @models.register_class
    class ResNet:
        pass

    with pytest.raises(SpecError, match="takes no 'depth'"):
        models.build({"NAME": "ResNet", "depth": 50})


def test_common_parameters_complete_a_config_without_changing_it() -> None:
    models = Registry("MODELS", common_para={"size": 8, "depth": 18})

    @models.register_function
    def whole(cfg: Mapping[str, object]) -> Mapping[str, object]:
        return cfg

    @models.register_function
    def parts(depth: int, size: int) -> tuple[int, int]:
        return depth, size

    @models.register_function
    def one(depth: int) -> int:
        return depth

    config = Config({"NAME": "whole", "depth": 50})
    assert dict(models.build(config)) == {"NAME": "whole", "depth": 50, "size": 8}
    assert dict(config) == {"NAME": "whole", "depth": 50}
    assert models.build({"NAME": "parts", "depth": 50}) == (50, 8)
    assert models.build({"NAME": "one"}) == 18
    complete = Config({"NAME": "whole", "depth": 50, "size": 9})
    assert models.build(complete) is complete
    with pytest.raises(KindError, match=r"a mappingproxy cannot be completed .*write size, depth in the config"):
        models.build(MappingProxyType({"NAME": "whole"}))


def test_a_build_function_gets_config_registry_and_logger() -> None:
    def build(cfg: Mapping[str, object], registry: Registry, logger: object, **kwargs: object) -> object:
        return registry.get(str(cfg["NAME"])), logger, kwargs

    models = Registry("MODELS", build_func=build)
    models.register_function("net")(len)
    assert models.build({"NAME": "net"}, "log", scale=2) == (len, "log", {"scale": 2})


@pytest.mark.parametrize(
    ("cfg", "kind", "message"),
    [
        (["NAME"], TypeError, "a config is a mapping, not"),
        ({3: "x"}, TypeError, "the key 3 of a config is no text"),
        ({}, KeyError, "the config has no 'NAME', only nothing"),
        ({"name": "Net"}, KeyError, "the config has no 'NAME', only name"),
        ({"NAME": 3}, TypeError, "a 'NAME' is a text, not 3"),
        ({"NAME": "net"}, KeyError, r"unknown MODELS 'net'; did you mean 'Net'\?"),
    ],
)
def test_a_wrong_config_is_refused(cfg: object, kind: type[Exception], message: str) -> None:
    models = Registry("MODELS")
    models.register_class("Net")(dict)
    with pytest.raises(kind, match=message):
        models.build(cfg)


def test_kinds_are_kept_apart() -> None:
    models = Registry("MODELS", allow_types=("class",))
    with pytest.raises(KindError, match="'MODELS' takes no function, only a class; register it elsewhere"):
        models.register_function(len)
    both = Registry("BOTH")
    with pytest.raises(TypeError, match="is a function, not a class; use register_function"):
        both.register_class(len)
    with pytest.raises(TypeError, match="is a class, not a function; use register_class"):
        both.register_function()(dict)
    with pytest.raises(KindError, match="allow_types holds 'class' and 'function'"):
        Registry("X", allow_types=("klass",))
    assert len(models) == len(both) == 0


def test_a_name_stands_for_one_thing() -> None:
    models = Registry("MODELS")
    models.register_class("net")(dict)
    with pytest.raises(RegisteredTwiceError):
        models.register_class("net")(list)
    with pytest.raises(KeyError, match="replace it with force=True"):
        models.register_function("net")(len)
    models.register_function("net", force=True)(len)
    assert models.get("net") is len


def test_errors_say_where_the_config_was_written() -> None:
    models = Registry("MODELS")

    @models.register_function
    def net(depth: int) -> int:
        return depth // 0

    with pytest.raises(UnregisteredError, match=r"^net.yaml:2:7: unknown MODELS 'nett'"):
        models.build(parse_yaml("depth: 3\nNAME: nett\n", "net.yaml").data)
    with pytest.raises(BuildError, match=r"^net.yaml:1:7: .*ZeroDivisionError") as raised:
        models.build(parse_yaml("NAME: net\ndepth: 3\n", "net.yaml").data)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
