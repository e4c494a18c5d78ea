"""The command that predicts."""

from __future__ import annotations

from argparse import Namespace

from treenail.adapters.cli.commands import _ranks
from treenail.adapters.config import Source, load
from treenail.adapters.files import redacted
from treenail.adapters.runtime import predict as predict_run


def predict(options: Namespace) -> int:
    """Write what a checkpoint's model predicts to a file; on the ranks that a launcher started."""
    run = load(Source(options.config, options.overrides, options.overlays, options.imports)).run
    with _ranks(run.distributed) as ranks:
        predicted = predict_run(
            run, options.checkpoint, options.output, data=options.data, files=options.files, communicator=ranks
        )
        if ranks.rank == 0:
            print(f"written  {redacted(options.output)}\nsamples  {predicted.samples}")
    return 0
