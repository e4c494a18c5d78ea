"""A late component is built without what it waits for."""

from torch import optim

from treenail.kernel import late

optimizer = late(optim.SGD)(lr=0.1).build()  # E: Missing positional argument "first" in call to "build"
