"""The dialect of mmengine: its documented examples about one registry, building, and errors."""

import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from treenail.adapters.documents import parse_yaml
from treenail.adapters.registries import KindError, RegisteredTwiceError, UnregisteredError
from treenail.adapters.registries.mmengine import Registry, build_from_cfg, build_model_from_cfg
from treenail.kernel import BuildError, RegistryError, SpecError


class Sigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("call Sigmoid.forward")
        return x


class ReLU(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        print("call ReLU.forward")
        return x


class ResNet:
    def __init__(self, depth: int, stages: int = 4) -> None:
        self.depth, self.stages = depth, stages


def activations() -> Registry[nn.Module]:
    found: Registry[nn.Module] = Registry("activation", scope="mmengine")
    found.register_module()(Sigmoid)
    found.register_module(module=ReLU)
    return found


def test_activations_are_chosen_by_their_configs(capsys: pytest.CaptureFixture[str]) -> None:
    found = activations()
    assert dict(found.module_dict) == {"Sigmoid": Sigmoid, "ReLU": ReLU}
    assert repr(found.module_dict) == f"{{'Sigmoid': {Sigmoid!r}, 'ReLU': {ReLU!r}}}"
    assert repr(found) == f"Registry(name=activation, items={found.module_dict!r})"
    x = torch.randn(2)
    for cfg in ({"type": "Sigmoid"}, {"type": "ReLU", "inplace": True}):
        before = dict(cfg)
        assert found.build(cfg)(x) is x
        assert found.build(cfg=cfg)(x) is x
        assert cfg == before
    assert capsys.readouterr().out.splitlines() == ["call Sigmoid.forward"] * 2 + ["call ReLU.forward"] * 2


def test_a_build_function_decides_how_things_are_built(capsys: pytest.CaptureFixture[str]) -> None:
    def build_activation(
        cfg: dict[str, object], registry: Registry[nn.Module], *args: int, **kwargs: object
    ) -> nn.Module:
        remaining = dict(cfg)
        kind = str(remaining.pop("type"))
        print(f"build activation: {kind}")
        return registry.find(kind)(*args, **kwargs, **remaining)

    found = Registry("activation", build_func=build_activation, scope="mmengine")

    @found.register_module()
    class Tanh(nn.Module):
        def __init__(self, *extra: int) -> None:
            super().__init__()
            self.extra = extra

        def forward(self, x: Tensor) -> Tensor:
            print("call Tanh.forward")
            return x

    found.build({"type": "Tanh"})(torch.randn(2))
    assert capsys.readouterr().out.splitlines() == ["build activation: Tanh", "call Tanh.forward"]
    assert found.build({"type": "Tanh"}, 1, 2).extra == (1, 2)


@pytest.mark.parametrize(
    "build",
    [
        lambda cfg, registry, *args: (cfg, registry.name, args),
        lambda cfg, *args, registry: (cfg, registry.name, args),
        lambda cfg, extra=None, registry=None: (cfg, registry.name, () if extra is None else (extra,)),
        lambda cfg, *args, **kwargs: (cfg, kwargs["registry"].name, args),
    ],
)
def test_a_build_function_gets_the_registry_wherever_it_takes_it(build: Callable[..., object]) -> None:
    found = Registry("r", build_func=build)
    assert found.build("cfg") == ("cfg", "r", ())
    assert found.build("cfg", 1) == ("cfg", "r", (1,))


def test_functions_are_called() -> None:
    found = Registry("function", scope="mmengine")

    @found.register_module()
    def print_args(**kwargs: int) -> dict[str, int]:
        return kwargs

    assert found.build({"type": "print_args", "a": 1, "b": 2}) == {"a": 1, "b": 2}


def test_every_form_registers() -> None:
    found = Registry("models")

    @found.register_module
    def bare() -> int:
        return 1

    @found.register_module("positional")
    def second() -> int:
        return 2

    @found.register_module(name="mnet")
    def third() -> int:
        return 3

    @found.register_module(name=["a", "b"])
    def fourth() -> int:
        return 4

    assert found.register_module(module=ResNet) is ResNet
    assert found.register_module("net", module=ResNet) is ResNet
    assert (bare(), second(), third(), fourth()) == (1, 2, 3, 4)
    assert list(found.module_dict) == ["bare", "positional", "mnet", "a", "b", "ResNet", "net"]
    assert found.get("b") is fourth
    assert len(found) == 7
    assert "mnet" in found
    assert "third" not in found


def test_force_replaces() -> None:
    found = activations()
    with pytest.raises(
        KeyError, match="'ReLU' is registered twice; choose another name, or replace it with force=True"
    ):
        found.register_module(name="ReLU", module=nn.ReLU)
    found.register_module(name="ReLU", module=nn.ReLU, force=True)
    assert found.get("ReLU") is nn.ReLU


def test_registering_checks_its_arguments() -> None:
    found = Registry("models")
    with pytest.raises(TypeError, match="force is True or False, not 'yes'"):
        found.register_module(force="yes", module=ResNet)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(TypeError, match="the name 3 is no text"):
        found.register_module(name=3, module=ResNet)  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(TypeError, match="the name 3 is no text"):
        found.register_module(name=["a", 3], module=ResNet)  # type: ignore[list-item]  # what the test is about
    with pytest.raises(TypeError, match="3 is no class or function"):
        found.register_module(module=3)  # type: ignore[call-overload]  # what the test is about
    assert len(found) == 0


def test_default_arguments_fill_what_the_config_leaves_out() -> None:
    models = Registry("models")
    models.register_module(module=ResNet)
    cfg, default_args = {"depth": 50}, {"type": "ResNet", "depth": 18, "stages": 3}
    built = build_from_cfg(cfg, models, default_args)
    assert (built.depth, built.stages) == (50, 3)
    assert models.build({"type": "ResNet"}, default_args={"depth": 18}).depth == 18
    assert models.build({"type": "ResNet"}, {"depth": 18}).depth == 18
    assert (cfg, default_args) == ({"depth": 50}, {"type": "ResNet", "depth": 18, "stages": 3})


def test_a_type_may_be_the_class_itself() -> None:
    assert build_from_cfg({"type": ResNet, "depth": 50}, Registry("models")).depth == 50


def test_values_are_handed_over_as_they_are() -> None:
    class Nested(dict[str, object]):
        pass

    models = Registry("models")
    models.register_module("keep")(lambda **given: given)
    parts: list[object] = [Nested(a=1)]
    numbers = (number for number in range(3))
    given = models.build({"type": "keep", "parts": parts, "numbers": numbers, "nested": parts[0]})
    assert given["parts"] is parts
    assert given["numbers"] is numbers
    assert given["nested"] is parts[0]
    assert isinstance(given["numbers"], Iterator)


@pytest.mark.parametrize(
    ("cfg", "kind", "message"),
    [
        (3, TypeError, "a config is a mapping, not 3"),
        ({"depth": 50}, KeyError, "the config has no 'type', only depth"),
        ({"type": 3}, TypeError, "a 'type' is a name, a class or a function, not 3"),
        ({"type": "ResNet", "_scope_": 3}, TypeError, "a '_scope_' is a name, not 3"),
        ({"type": "Resnet", "depth": 50}, KeyError, r"scope 'here' knows no 'Resnet'; did you mean 'ResNet'\?"),
        ({"type": "ResNet", "detph": 50}, SpecError, r"takes no 'detph'; did you mean 'depth'\?"),
        ({"type": "ResNet"}, SpecError, "missing a required argument: 'depth'"),
    ],
)
def test_a_wrong_config_is_refused(cfg: object, kind: type[Exception], message: str) -> None:
    models = Registry("models", scope="here")
    models.register_module(module=ResNet)
    with pytest.raises(kind, match=message):
        models.build(cfg)


def test_a_registry_is_needed() -> None:
    with pytest.raises(KindError, match="3 is no registry"):
        build_from_cfg({"type": "x"}, 3)  # type: ignore[arg-type]  # what the test is about


def test_errors_say_where_the_config_was_written_and_keep_their_cause() -> None:
    models = Registry("models", scope="here")

    @models.register_module
    def broken(width: int) -> float:
        return width / 0

    written = parse_yaml("model:\n  type: broken\n  width: 3\n", "configs/x.yaml").data
    assert isinstance(written, dict)
    with pytest.raises(
        BuildError, match=r"^configs/x.yaml:2:9: .*broken could not be built: ZeroDivisionError"
    ) as raised:
        models.build(written["model"])
    cause = raised.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert inspect.getinnerframes(cause.__traceback__)[-1].function == "broken"  # type: ignore[arg-type]  # was raised
    with pytest.raises(SpecError, match=r"^model.backbone: .*takes no 'widht'"):
        models.build({"type": "broken", "widht": 3}, where="model.backbone")
    with pytest.raises(RegistryError, match=r"^model.backbone: the registry 'models' .* knows no 'borken'"):
        build_from_cfg({"type": "borken"}, models, where="model.backbone")


def test_a_list_of_models_is_a_sequential_one() -> None:
    found: Registry[nn.Module] = Registry("models", build_func=build_model_from_cfg)
    found.register_module(module=nn.Linear)
    found.register_module(module=nn.ReLU)
    model = found.build([{"type": "Linear", "in_features": 2, "out_features": 3}, {"type": "ReLU"}])
    assert isinstance(model, nn.Sequential)
    assert [type(part) for part in model] == [nn.Linear, nn.ReLU]
    assert isinstance(found.build({"type": "ReLU"}), nn.ReLU)
    with pytest.raises(SpecError, match=r"^model\[1\]: .*takes no 'inplcae'"):
        found.build([{"type": "ReLU"}, {"type": "ReLU", "inplcae": True}], where="model")


def test_a_scope_must_be_writable_before_a_name() -> None:
    for scope in ("", "a.b", "a:b"):
        with pytest.raises(KindError, match="cannot be the scope of 'models'"):
            Registry("models", scope=scope)


def test_names_and_parents_are_checked() -> None:
    root = Registry("models", scope="root")
    Registry("detectors", parent=root, scope="det")
    with pytest.raises(RegisteredTwiceError, match="'models' has a child of the scope 'det'"):
        Registry("others", parent=root, scope="det")
    with pytest.raises(KindError, match="the parent 'models' is no registry"):
        Registry("others", parent="models")  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(RegistryError, match="only a root takes a core"):
        Registry("others", parent=root, scope="x", core=root.core)
    with pytest.raises(KindError, match="a name is a text, not 3"):
        root.get(3)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(UnregisteredError, match="nothing is registered"):
        root.build({"type": "ResNet"})
    assert list(root.children) == ["det"]
