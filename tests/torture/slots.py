"""Records of the processes of a fleet for the judge: shared memory with a slot for each process."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

RING: Final = 4096
"""Entries that a slot keeps: some seconds' worth; `Slots.new` says when more were lost."""

_HEADER: Final = 8
_WORDS: Final = _HEADER + 2 * RING
_PID, _FORK_INTO, _LINGER, _ENTRIES, _ADMITTED, _REFUSED = range(6)


class Sight(NamedTuple):
    """A handler that was seen running.

    Attributes:
        admitted: The clock's reading on which its admission rests.
        running: The clock while it ran.
    """

    admitted: float
    running: float


class Slots:
    """Each slot has one writer. Words of 8 aligned bytes, an entry before the count that tells of it."""

    def __init__(self, path: Path, number: int | None = None) -> None:
        """Map the file; with a `number` of slots, create it first."""
        if number is not None:
            path.write_bytes(b"")
            with path.open("r+b") as file:
                file.truncate(8 * _WORDS * number)
        with path.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        self.path = path
        self.number = len(mapped) // (8 * _WORDS)
        self._ints = memoryview(mapped).cast("q")
        self._floats = memoryview(mapped).cast("d")

    def start(self, slot: int) -> None:
        """Empty a slot before another process uses it."""
        base = slot * _WORDS
        for word in range(_HEADER):
            self._ints[base + word] = 0

    def pid(self, slot: int) -> int:
        return self._ints[slot * _WORDS + _PID]

    def set_pid(self, slot: int, pid: int) -> None:
        self._ints[slot * _WORDS + _PID] = pid

    def ask_fork(self, slot: int, child: int) -> None:
        """Have the process of a slot fork; its child uses the slot `child`."""
        self._ints[slot * _WORDS + _FORK_INTO] = child + 1

    def take_fork(self, slot: int) -> int | None:
        """The slot of the child that is wanted, once."""
        asked = self._take(slot, _FORK_INTO)
        return asked - 1 if asked else None

    def ask_linger(self, slot: int, seconds: float) -> None:
        """Have the next handler of a slot's process take so long."""
        self._ints[slot * _WORDS + _LINGER] = int(seconds * 1000)

    def take_linger(self, slot: int) -> float:
        """How long a handler shall take, once."""
        return self._take(slot, _LINGER) / 1000

    def _take(self, slot: int, word: int) -> int:
        asked = self._ints[slot * _WORDS + word]
        if asked:
            self._ints[slot * _WORDS + word] = 0
        return asked

    def record(self, slot: int, sight: Sight) -> None:
        base = slot * _WORDS
        entries = self._ints[base + _ENTRIES]
        place = base + _HEADER + 2 * (entries % RING)
        self._floats[place], self._floats[place + 1] = sight
        self._ints[base + _ENTRIES] = entries + 1

    def count(self, slot: int, *, admitted: bool) -> None:
        self._ints[slot * _WORDS + (_ADMITTED if admitted else _REFUSED)] += 1

    def admitted(self, slot: int) -> int:
        return self._ints[slot * _WORDS + _ADMITTED]

    def refused(self, slot: int) -> int:
        return self._ints[slot * _WORDS + _REFUSED]

    def new(self, slot: int, seen: int) -> Iterator[Sight]:
        """The entries after the first `seen`."""
        base = slot * _WORDS
        entries = self._ints[base + _ENTRIES]
        if entries - seen >= RING:
            raise RuntimeError(f"slot {slot} has lost entries: it was looked at too seldom")
        for entry in range(seen, entries):
            place = base + _HEADER + 2 * (entry % RING)
            yield Sight(self._floats[place], self._floats[place + 1])
