"""The 7 : 2 : 1 split into train, test and neuron detection, stratified and without leakage."""

import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..splits import BENCH_SPLITS
from .hashes import NEAR, near_pairs
from .records import BenchError, Record

SHARES = dict(zip(BENCH_SPLITS, (0.7, 0.2, 0.1), strict=True))
_PASSES = 50


class Splitting(NamedTuple):
    """A split of records."""

    splits: dict[str, str]
    """Split of every record, by id."""
    groups: int
    """Groups of records that had to stay together."""
    largest: int
    """Records of the largest of them."""


def ties(record: Record) -> Iterator[tuple[str, ...]]:
    """What records of different splits must not share: file, thing of a culture, prompts.

    Raises:
        BenchError: for a record without captions.
    """
    pair = record.pair()
    yield "the same file", record.sha256
    yield "the same thing of one culture", record.culture, noun_of(record)
    for text in (pair.cultural, pair.neutral):
        yield "the same prompt", " ".join(text.split()).casefold()


def noun_of(record: Record) -> str:
    """The thing that a record is about: its noun, or else that of its neutral caption."""
    pair = record.pair()
    written = " ".join(pair.neutral[slice(*span)] for span in pair.nouns_neutral)
    return (record.noun or written).casefold()


def groups_of(records: Sequence[Record], near: int = NEAR) -> list[list[int]]:
    """Indices of records that belong together, directly or through others: by ties, or by their looks.

    Args:
        near: bits of the perceptual hash in which pictures of one motif may differ; −1: looks do not count.
    """
    parents = list(range(len(records)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[Hashable, int] = {}
    for index, record in enumerate(records):
        for tie in ties(record):
            parents[root(index)] = root(first.setdefault(tie, index))
    if near >= 0:
        for i, j in near_pairs([record.phash for record in records], near):
            parents[root(i)] = root(j)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(records)):
        groups[root(index)].append(index)
    return list(groups.values())


def split_records(
    records: Sequence[Record],
    near: int = NEAR,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    again: bool = False,
) -> Splitting:
    """Put records into splits so that each has its share of all, of every culture, category, and both.

    Whole groups (see `groups_of`) are placed, large ones first, where they bring the counts n closest to
    what they should be, e = share · total: the sum of (n − e)² / e over all of these strata and the splits.
    Then groups are moved one by one while that gets smaller. Records that have a split already keep it.

    Args:
        again: forget the splits that the records have.

    Raises:
        BenchError: for records without captions, or a group whose records are in different splits.
    """
    if not records:
        raise BenchError("there are no accepted records to split: review some first")
    balance = _Balance(records, shares)
    placed: list[tuple[list[int], str]] = []
    free: list[list[int]] = []
    groups = groups_of(records, near)
    for group in groups:
        splits = {} if again else {index: records[index].split for index in group}
        found = {split for split in splits.values() if split is not None}
        if len(found) > 1:
            ids = [records[index].id for index in group if records[index].split][:4]
            raise BenchError(
                f"the records {', '.join(ids)} … belong together (same thing, prompt or picture) and are in "
                f"the splits {', '.join(sorted(found))}: reject some of them, or split everything again"
            )
        if found:
            placed.append((group, found.pop()))
        else:
            free.append(group)
    for group, split in placed:
        balance.add(group, split)
    generator = random.Random(seed)
    generator.shuffle(free)
    free.sort(key=len, reverse=True)
    chosen = [balance.place(group) for group in free]
    for _ in range(_PASSES):
        before = list(chosen)
        for index, group in enumerate(free):
            balance.add(group, chosen[index], -1)
            chosen[index] = balance.place(group, chosen[index])
        if chosen == before:
            break
    placed += zip(free, chosen, strict=True)
    by_id = {records[index].id: split for group, split in placed for index in group}
    return Splitting(by_id, len(groups), max(map(len, groups)))


class _Balance:
    """Counts by stratum and split, against what they should be."""

    def __init__(self, records: Sequence[Record], shares: Mapping[str, float]) -> None:
        self.shares = shares
        self.strata = [strata_of(record) for record in records]
        self.totals: dict[Hashable, int] = defaultdict(int)
        for stratum in (one for own in self.strata for one in own):
            self.totals[stratum] += 1
        self.counts = {stratum: dict.fromkeys(shares, 0) for stratum in self.totals}

    def add(self, group: Iterable[int], split: str, sign: int = 1) -> None:
        for index in group:
            for stratum in self.strata[index]:
                self.counts[stratum][split] += sign

    def place(self, group: Sequence[int], first: str | None = None) -> str:
        """Add a group to the split where it costs least; of equals, `first`."""
        own: dict[Hashable, int] = defaultdict(int)
        for index in group:
            for stratum in self.strata[index]:
                own[stratum] += 1

        def cost(split: str) -> tuple[float, bool]:
            total = 0.0
            for stratum, count in own.items():
                expected = self.shares[split] * self.totals[stratum]
                # (n + c − e)² / e − (n − e)² / e
                total += count * (count + 2 * (self.counts[stratum][split] - expected)) / expected
            return round(total, 9), split != first

        best = min(self.shares, key=cost)
        self.add(group, best)
        return best


def strata_of(record: Record) -> tuple[Hashable, ...]:
    """What a record counts for in the balance of the splits."""
    return (
        ("all",),
        ("culture", record.culture),
        ("category", record.category),
        ("both", record.culture, record.category),
    )
