"""Configs of data as typed Python, so that mypy checks them too."""

from treenail.adapters.config.freezing.freeze import Frozen, freeze, freeze_with_places
from treenail.adapters.config.freezing.typecheck import Findings, TypeCheckError, check_types

__all__ = ["Findings", "Frozen", "TypeCheckError", "check_types", "freeze", "freeze_with_places"]
