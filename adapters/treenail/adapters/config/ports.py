"""The ports that a config can name adapters of."""

from types import MappingProxyType

PORTS = MappingProxyType(
    {
        "module": "torch.nn.modules.module:Module",
        "weight_initializer": "collections.abc:Callable",
        "loss": "treenail.contracts.run:Loss",
        "optimizer": "torch.optim.optimizer:Optimizer",
        "scheduler": "torch.optim.lr_scheduler:LRScheduler",
        "dataset": "treenail.contracts.run:Dataset",
        "sampler": "treenail.kernel.ports:Sampler",
        "batch_sampler": "treenail.contracts.sampling:BatchSampler",
        "loop": "treenail.kernel.ports:Loop",
        "metric": "treenail.kernel.ports:Metric",
        "hook": "treenail.kernel.hooks:Hook",
        "vis": "treenail.kernel.ports:VisBackend",
        "files": "treenail.kernel.ports:FileBackend",
        "exporter": "treenail.kernel.ports:Exporter",
        "parallel": "treenail.contracts.run:ParallelModule",
        "parameters": "treenail.contracts.parameters:ParameterGroups",
        "updates": "treenail.contracts.updates:Updater",
        "averaging": "treenail.contracts.averaging:Averager",
        "communicator": "treenail.kernel.ports:Communicator",
    }
)
"""Name of each port, and ``module:name`` of the type that a slot for it has; named, so that nothing need be imported."""
