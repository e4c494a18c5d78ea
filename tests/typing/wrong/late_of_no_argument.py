"""Nothing comes later for a class that takes no argument."""

from treenail.adapters.comm import SingleProcess
from treenail.kernel import late

communicator = late(SingleProcess)()  # E: Argument 1 to "late" has incompatible type "type[SingleProcess]"
