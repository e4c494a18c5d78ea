"""The commands that look into checkpoints of any system, and make ours of others'."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from treenail.adapters.config import Source, load
from treenail.adapters.runtime import choose_work_dir, convert_checkpoint, locked
from treenail.adapters.weights import STRIP_MODULE, facts, open_source, parts, tensors
from treenail.kernel import ConfigError


def inspect(options: Namespace) -> int:
    """Show what is in a checkpoint."""
    source = open_source(options.checkpoint)
    _print_table(facts(source))
    rows = [("part", "tensors", "numbers", "size")]
    rows += [(each.name, f"{each.tensors:,}", f"{each.elements:,}", _size(each.size)) for each in parts(source)]
    print()
    _print_table(rows)
    if options.tensors is None:
        return 0
    shown = [(name, each) for name, each in tensors(source.tree) if fnmatchcase(name, options.tensors)]
    if not shown:
        names = [name for name, _ in tensors(source.tree)]
        mend = f"they are called {', '.join(names[:5])}, for instance" if names else "there are none in it"
        raise ConfigError(f"no tensor is called like '{options.tensors}'", where=source.where, mend=mend)
    print()
    _print_table([(name, str(each.dtype).removeprefix("torch."), str(list(each.shape))) for name, each in shown])
    return 0


def convert(options: Namespace) -> int:
    """Make a checkpoint of ours of another system's."""
    pairs = [_pair(each) for each in options.revise]
    loaded = load(Source(options.config, options.overrides, options.overlays, options.imports))
    elsewhere = loaded.run.files.checkpoints
    work_dir = choose_work_dir(options.config, options.work_dir, resume=False, checkpoints=elsewhere)
    work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(work_dir):
            done = convert_checkpoint(
                loaded.run,
                options.checkpoint,
                work_dir,
                prefix=options.prefix,
                revise_keys=pairs or STRIP_MODULE,
                skip=options.skip,
                document=loaded.document,
            )
    except BaseException:
        with suppress(OSError):
            work_dir.rmdir()  # succeeds only if nothing was written
        raise
    print("taken:")
    _print_table([(f"  {each}",) for each in done.taken])
    print("not taken:")
    _print_table([(f"  {each}",) for each in done.left])
    print(f"written: {done.checkpoint}")
    again = ["treenail", "train", str(options.config), *options.overrides]
    again += [f"--with={each}" for each in options.overlays] + [f"--allow-import={each}" for each in options.imports]
    print(f"go on with:\n  {shlex.join([*again, '--work-dir', str(work_dir), '--resume'])}")
    return 0


def _pair(text: str) -> tuple[str, str]:
    pattern, separator, replacement = text.partition("=")
    if not separator or not pattern:
        raise ConfigError(f"'{text}' is no PATTERN=REPLACEMENT", where="--revise", mend=r"write --revise '^net\.='")
    return pattern, replacement


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    # What a file says is shown, not obeyed: escape sequences in it could clear the terminal or forge lines.
    rows = [
        tuple("".join(each if each.isprintable() else repr(each)[1:-1] for each in cell) for cell in row)
        for row in rows
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


__all__ = ["convert", "inspect"]
