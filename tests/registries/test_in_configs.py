"""What was registered in any dialect can be named by a config."""

from collections.abc import Callable

import pytest

from treenail.adapters.config import Catalog
from treenail.adapters.registries import easycore, helios, mmengine, scepter
from treenail.kernel import Registry


class Recall:
    pass


def in_easycore() -> Registry[object]:
    found: easycore.Registry[object] = easycore.Registry("metric")
    found.register(Recall)
    return found.core


def in_helios() -> Registry[object]:
    found: helios.Registry[object] = helios.Registry("metric")
    found.register(Recall)
    return found.core


def in_scepter() -> Registry[object]:
    found: scepter.Registry[object] = scepter.Registry("metric")
    found.register_class(Recall)
    return found.core


def in_mmengine() -> Registry[object]:
    found: mmengine.Registry[object] = mmengine.Registry("metric")
    found.register_module(Recall)
    return found.core


def in_a_child_of_mmengine() -> Registry[object]:
    found = mmengine.Registry("metrics", parent=mmengine.RootRegistries().METRICS, scope="acme")
    found.register_module(Recall)
    return found.core


@pytest.mark.parametrize("register", [in_easycore, in_helios, in_scepter, in_mmengine, in_a_child_of_mmengine])
def test_a_catalog_knows_what_was_registered(register: Callable[[], Registry[object]]) -> None:
    catalog = Catalog()
    assert "Recall" not in catalog.names("metric")
    catalog.add(register())
    assert catalog.registry("metric").resolve("Recall") is Recall
    assert catalog.registry("metric").resolve("accuracy") is not Recall
