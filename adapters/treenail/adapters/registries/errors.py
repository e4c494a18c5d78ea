"""Errors of the dialects: each is our RegistryError, and the builtin that code written for the originals catches."""

from __future__ import annotations

from treenail.kernel import RegistryError


class UnregisteredError(RegistryError, KeyError):
    """A name or the key that should hold it is missing, or the name is ambiguous or leads nowhere; also a KeyError."""


class RegisteredTwiceError(RegistryError, KeyError):
    """A name or a scope is taken; also a KeyError."""


class KindError(RegistryError, TypeError):
    """Something is of a kind that cannot stand there; also a TypeError."""
