"""The laws of communicators, and of gathering what ranks hold.

The environment variable TREENAIL_LAW_EXAMPLES raises the number of examples that each of these laws looks at.
"""

from treenail.contracts.laws.comm.communicator import CommunicatorLaws
from treenail.contracts.laws.comm.gathering import GatherFunctions, GatherLaws

__all__ = ["CommunicatorLaws", "GatherFunctions", "GatherLaws"]
