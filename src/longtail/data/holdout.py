"""A test split for data that comes without one: stratified, decided by what is in the files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

TEST_SHARE = 0.2


def choose_test(digests: Sequence[str], labels: Sequence[str], share: float = TEST_SHARE) -> list[bool]:
    """Choose test images from each class: the given share, at least one, and never a class's last one.

    The choice depends on nothing but the contents of the files: not on their names or order, not on a seed, and little
    on what is added later. Identical files of a class stay together, so that none is in both sets.

    Args:
        digests: Digest of each file.
        labels: Class of each file.
        share: Share of each class's images, rounded to the nearest number.

    Returns:
        For each file, whether it is a test image.
    """
    members: dict[str, dict[str, list[int]]] = {}
    for k, (digest, label) in enumerate(zip(digests, labels, strict=True)):
        members.setdefault(label, {}).setdefault(digest, []).append(k)
    chosen = [False] * len(digests)
    for groups in members.values():
        total = sum(map(len, groups.values()))
        wanted, taken = max(1, round(share * total)), 0
        # Hashed again, so that the choice has nothing to do with the order in which a cache keeps its rows.
        order = sorted(groups, key=lambda digest: hashlib.blake2b(digest.encode(), person=b"test split").digest())
        for digest in order[:-1]:  # the last one is for training
            group = groups[digest]
            if taken and taken + len(group) > wanted:
                continue
            for k in group:
                chosen[k] = True
            taken += len(group)
            if taken >= wanted:
                break
    return chosen
