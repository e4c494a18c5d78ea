"""Freezing parts of a model by the names of modules and parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn

from treenail.kernel import did_you_mean


def freeze_parameters(model: nn.Module, patterns: Iterable[str], *, keep_eval: bool = False) -> tuple[str, ...]:
    """Let parameters require no gradient: those whose full name matches a pattern, and all of modules whose name does.

    That alone leaves the modes of modules as they are: in training, batch normalisation goes on to follow the batches with its
    running statistics, and dropout to drop. With `keep_eval` the modules that are frozen as a whole stay in eval mode: they
    are put into it now and, because ``model.train()`` takes them out of it, again whenever they are called.

    Args:
        model: Before it is made parallel.
        patterns: As `fnmatch` takes them; ``*`` also stands for dots: ``stem``, ``stem.*``, ``*.bn?``, ``layers.[0-3]``.
        keep_eval: Keep the modules that match, or whose parameters are all frozen, in eval mode.

    Returns:
        The names of the frozen parameters, of shared ones the first.

    Raises:
        TypeError: The patterns are one text.
        ValueError: A pattern is empty, or matches nothing that has parameters; with `keep_eval`, nothing at all.
    """
    refuse_text("the patterns", patterns)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    modules = dict(model.named_modules(remove_duplicate=False))
    matched: set[nn.Module] = set()
    frozen: set[nn.Parameter] = set()
    for pattern in patterns:
        if not pattern:
            raise ValueError("a pattern is empty, as only the name of the whole model is; '*' freezes all of it")
        names = matching(pattern, [*modules, *parameters])
        found = {modules[name] for name in names if name in modules}
        below = {each for module in found for each in module.parameters()}
        below |= {parameters[name] for name in names if name in parameters}
        if not below and not keep_eval:
            raise ValueError(f"'{pattern}' matches only what has no parameters: {', '.join(names[:3])}")
        matched |= found
        frozen |= below
    for parameter in frozen:
        parameter.requires_grad_(False)
    if keep_eval:
        for module in _called(model, matched, frozen):
            module.eval()
            if _stay_in_eval not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_stay_in_eval)
    return tuple(name for name, parameter in model.named_parameters() if parameter in frozen)


def refuse_text(name: str, patterns: object) -> None:
    """Refuse one text where patterns are meant, which Python would take for its letters.

    Args:
        name: What the patterns are called.
        patterns: They.

    Raises:
        TypeError: It is one text.
    """
    if isinstance(patterns, str):
        raise TypeError(f"{name} are the text '{patterns}': write a list of one")


def matching(pattern: str, names: Collection[str]) -> list[str]:
    """Return the names that a pattern of `fnmatch` matches.

    Raises:
        ValueError: It matches none.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(f"'{pattern}' matches no parameter and no module; {nearest(pattern.strip('*.?'), names)}")
    return found


def nearest(word: str, names: Iterable[str]) -> str:
    """Say which name a word that matches none was perhaps meant to be, or what names there are."""
    known = dict.fromkeys(each for name in names if name for each in ancestry(name))
    parts = dict.fromkeys(part for name in known for part in name.split("."))
    few = ", ".join(list(known)[:5])
    return did_you_mean(word, [*known, *parts]) or f"there are {few}{' …' if len(known) > 5 else ''}"


def ancestry(name: str) -> list[str]:
    """Return the names that a full name begins with, and it: ``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _called(module: nn.Module, matched: set[nn.Module], frozen: set[nn.Parameter]) -> Iterator[nn.Module]:
    """Yield the outermost modules that are frozen as a whole and are called themselves, as a ModuleList is not."""
    own = list(module.parameters())
    whole = module in matched or (bool(own) and frozen.issuperset(own))
    if whole and type(module).forward is not nn.Module.forward:
        yield module
        return
    for child in module.children():
        yield from _called(child, matched | {child} if whole else matched, frozen)


def _stay_in_eval(module: nn.Module, _: object) -> None:
    if module.training:
        module.eval()
