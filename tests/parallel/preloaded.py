"""What the fork server imports before it forks; nothing else imports this module."""

import gc

import torch._dynamo  # which the first optimizer of each process would import
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.optim  # noqa: F401

import treenail.adapters.cli.commands
import treenail.adapters.config.make
import treenail.adapters.runtime
import treenail.contracts.laws  # noqa: F401

gc.freeze()  # a collection in a forked process would write to all of these objects, and so copy their memory
