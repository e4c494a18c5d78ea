"""Slurm's compressed notations of nodes and of tasks per node (srun(1), scontrol(1))."""

from __future__ import annotations

import re

from treenail.kernel import ConfigError

_GROUP = re.compile(r"\[([^][]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def expand_nodes(nodes: str, *, where: str) -> list[str]:
    """Return the hosts of a node list: ``gpu[1-2,07],login`` is gpu1, gpu2, gpu07, login.

    Args:
        nodes: What SLURM_NODELIST holds; ``scontrol show hostnames`` is not needed.
        where: The variable's name, for messages.

    Raises:
        ConfigError: It is no node list.
    """
    hosts = [host for part in _split(nodes) for host in _expand(part, nodes, where)]
    if not hosts or not all(hosts):
        raise ConfigError(f"{nodes!r} is no list of nodes", where=where, mend="Slurm writes node[1-3,07],other")
    return hosts


def tasks_of_node(tasks: str, node: int, *, where: str) -> int:
    """Return how many tasks a node runs: in ``2(x3),1`` the nodes 0 to 2 have two, node 3 has one.

    Args:
        tasks: What SLURM_TASKS_PER_NODE holds.
        node: The node's number, from 0.
        where: The variable's name, for messages.

    Raises:
        ConfigError: It is no such list, or has no such node.
    """
    of_node: list[int] = []
    for part in tasks.split(","):
        match = _TASKS.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"{tasks!r} does not say tasks per node", where=where, mend="Slurm writes 2(x3),1")
        of_node += [int(match[1])] * min(int(match[2] or 1), node + 1)  # no more than are asked for
    if node >= len(of_node):
        raise ConfigError(f"{tasks!r} has no node {node}", where=where, mend="it must say all nodes of the step")
    return of_node[node]


def _split(nodes: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    return re.split(r",(?![^[]*\])", nodes)


def _expand(part: str, nodes: str, where: str) -> list[str]:
    match = _GROUP.search(part)
    if match is None:
        if "[" in part or "]" in part:
            raise ConfigError(f"{nodes!r} has an open bracket", where=where, mend="Slurm writes node[1-3,07],other")
        return [part.strip()]
    hosts = []
    for each in match[1].split(","):
        span = _RANGE.fullmatch(each)
        if span is None or int(span[2] or span[1]) < int(span[1]):
            raise ConfigError(f"{each!r} in {nodes!r} is no range", where=where, mend="Slurm writes node[1-3,07],other")
        for number in range(int(span[1]), int(span[2] or span[1]) + 1):
            written = str(number).zfill(len(span[1]))  # leading zeros are part of the name
            hosts += _expand(part[: match.start()] + written + part[match.end() :], nodes, where)
    return hosts


__all__ = ["expand_nodes", "tasks_of_node"]
