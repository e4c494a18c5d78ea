"""Seeds are mixed by hashing, never added: (seed 0, epoch 1) must not equal (seed 1, epoch 0)."""

from __future__ import annotations

from operator import index


def mix(*parts: int | str) -> int:
    """Hash the parts into one seed.

    Args:
        *parts: Integers of any size and strings, for example ``mix(seed, epoch, "sampler")``. What stands for an integer
            (numpy's, a tensor of one) is that integer.

    Returns:
        An integer in [0, 2**63), which torch, random and (modulo 2**32) numpy accept as a seed.
        Equal parts give an equal seed in every process and on every platform; 1 and "1" differ.
        Uses BLAKE2b (RFC 7693).
    """
    from hashlib import blake2b  # brings OpenSSL in, which most imports of the kernel do not need

    text = "\x1f".join(f"s{part}" if isinstance(part, str) else f"i{index(part)}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
