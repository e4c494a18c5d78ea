"""The laws of the ports, executable: an adapter, ours or a stranger's, is right when it obeys them.

    from treenail.contracts.laws import FileBackendLaws

    class TestMyBackend(FileBackendLaws):
        def make(self) -> FileBackend:  # a fresh, empty one every time
            return MyBackend(...)

pytest (or unittest's skips and any runner that calls `test_*` methods) does the rest. A law that fails raises an
AssertionError that says what was violated. Inputs are drawn by Hypothesis; its profiles apply.

Raises:
    MissingDependencyError: (on import) Hypothesis is not installed; it comes with the extra ``treenail[laws]``.
"""

from treenail.kernel import require

try:
    from treenail.contracts.laws.averaging import AveragerLaws
    from treenail.contracts.laws.comm import CommunicatorLaws, GatherFunctions, GatherLaws
    from treenail.contracts.laws.exporter import ExporterLaws
    from treenail.contracts.laws.files import FileBackendLaws
    from treenail.contracts.laws.files_crash import FileCrashLaws
    from treenail.contracts.laws.files_read_only import ReadOnlyFileLaws
    from treenail.contracts.laws.hooks import HookDispatchLaws
    from treenail.contracts.laws.metrics import MetricLaws
    from treenail.contracts.laws.sampling import BatchSamplerLaws, SamplerLaws, ShardLaws
    from treenail.contracts.laws.updates import UpdaterLaws
except ModuleNotFoundError:
    require("hypothesis", extra="laws", purpose="a suite of laws")
    raise

__all__ = [
    "AveragerLaws",
    "BatchSamplerLaws",
    "CommunicatorLaws",
    "ExporterLaws",
    "FileBackendLaws",
    "FileCrashLaws",
    "GatherFunctions",
    "GatherLaws",
    "HookDispatchLaws",
    "MetricLaws",
    "ReadOnlyFileLaws",
    "SamplerLaws",
    "ShardLaws",
    "UpdaterLaws",
]
