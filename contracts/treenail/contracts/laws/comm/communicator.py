"""The laws of a `Communicator`."""

from treenail.contracts.laws.comm.failures import FailureLaws
from treenail.contracts.laws.comm.groups import GroupLaws
from treenail.contracts.laws.comm.messages import MessageLaws
from treenail.contracts.laws.comm.mistakes import MistakeLaws
from treenail.contracts.laws.comm.moving import MovingLaws
from treenail.contracts.laws.comm.reducing import ReducingLaws


class CommunicatorLaws(MovingLaws, ReducingLaws, MessageLaws, GroupLaws, MistakeLaws, FailureLaws):
    """What every communicator obeys: subclass it, define `run`, and let pytest collect the subclass.

    class TestMine(CommunicatorLaws):
        def run(self, world_size, program, inputs):
            return my_launcher(world_size, lambda communicator: program(communicator, inputs[communicator.rank]))
    """
