"""A built component is asked for what it does not have."""

from treenail.adapters.files import LocalFiles
from treenail.kernel import spec

files = spec(LocalFiles)("runs").build()
content = files.raed("latest")  # E: "LocalFiles" has no attribute "raed"
