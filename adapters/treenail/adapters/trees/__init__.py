"""A config as a mapping with attributes, for those who embed Treenail or come from another system."""

from treenail.adapters.trees.arguments import OverrideAction, add_config_arguments, config_from_arguments
from treenail.adapters.trees.errors import AttributeAccessError, FrozenConfigError, MissingEntryError
from treenail.adapters.trees.nodes import ConfigList
from treenail.adapters.trees.tree import ConfigTree

# The names that other systems have for them.
CfgNode = ConfigTree
Config = ConfigTree
ConfigDict = ConfigTree
DictAction = OverrideAction

__all__ = [
    "AttributeAccessError",
    "CfgNode",
    "Config",
    "ConfigDict",
    "ConfigList",
    "ConfigTree",
    "DictAction",
    "FrozenConfigError",
    "MissingEntryError",
    "OverrideAction",
    "add_config_arguments",
    "config_from_arguments",
]
