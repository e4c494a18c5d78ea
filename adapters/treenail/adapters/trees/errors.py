"""What goes wrong in the use of a config: each error is also the one that a dict or an object would raise."""

from __future__ import annotations

from treenail.kernel import ConfigError


class MissingEntryError(ConfigError, KeyError):
    """A config has no entry of this key."""


class AttributeAccessError(ConfigError, AttributeError):
    """A config has no entry of this name, or the name is one of its methods."""


class FrozenConfigError(ConfigError, AttributeError):
    """A frozen config was to be changed."""
