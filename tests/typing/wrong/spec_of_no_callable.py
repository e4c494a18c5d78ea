"""A mapping of arguments where a class is described."""

from treenail.kernel import spec

settings = spec({"width": 128})  # E: incompatible type "dict[str, int]"
