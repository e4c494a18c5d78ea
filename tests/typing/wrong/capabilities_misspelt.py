"""A capability that does not exist."""

from treenail.kernel import Capabilities

capabilities = Capabilities(atomic_replacement=True)  # E: "atomic_replacement" ... did you mean "atomic_replace"?
