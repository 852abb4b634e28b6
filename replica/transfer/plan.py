"""Which files still have to come, from where on, and what to do with one that is not what was promised. Pure.

A file is complete when it lies under its own name; until then it is kept as `HASH.part`, named by what it will be. So what was
fetched once is found again: after a crash, under another name, from another member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from replica.model.errors import Code, ZaibeiError, require
from replica.model.transfer import KEPT_MANIFEST, PART_SUFFIX, FileLine, Manifest

ATTEMPTS_MAX = 3  # of one file whose content is not what its hash says
LASTING_SUFFIXES = (".sst", ".blob")  # never written again at the sender: any later manifest may name them too


class FileState(StrEnum):
    """Life of one file of a transfer."""

    WANTED = "wanted"
    COMING = "coming"
    DONE = "done"
    FAILED = "failed"


FILE_MOVES: dict[FileState, frozenset[FileState]] = {
    FileState.WANTED: frozenset({FileState.COMING}),
    FileState.COMING: frozenset({FileState.WANTED, FileState.DONE, FileState.FAILED}),
    FileState.DONE: frozenset(),
    FileState.FAILED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Local:
    """A file found in the folder: complete under a name of its own (with its hash), or a part."""

    name: str
    octets: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Sorting:
    """What to do with the files found before anything is fetched.

    Args:
        keep: names of complete files that are right as they are.
        parts: hash -> octets of parts to go on with.
        rename: (old, new): complete content under another name becomes a part that only has to be verified.
        drop: names nobody needs.
    """

    keep: tuple[str, ...]
    parts: Mapping[str, int]
    rename: tuple[tuple[str, str], ...]
    drop: tuple[str, ...]


def part_name(line: FileLine) -> str:
    return line.sha256 + PART_SUFFIX


def sort_local(manifest: Manifest, found: Iterable[Local]) -> Sorting:
    """Decide what of a folder's files is of use for a manifest."""
    by_name = {line.name: line for line in manifest.files}
    local = {one.name: one for one in found if one.name != KEPT_MANIFEST}
    keep = tuple(sorted(name for name, one in local.items() if name in by_name and one.sha256 == by_name[name].sha256))
    needed = {line.sha256: line for line in manifest.files if line.name not in keep}
    parts: dict[str, int] = {}
    rename, drop = [], []
    for name, one in sorted(local.items()):
        if name in keep:
            continue
        sha = name.removesuffix(PART_SUFFIX) if name.endswith(PART_SUFFIX) else ""
        if sha in needed and one.octets <= needed[sha].octets and sha not in parts:
            parts[sha] = one.octets
        elif not sha and one.sha256 in needed and one.sha256 + PART_SUFFIX not in local and one.sha256 not in parts:
            parts[one.sha256] = one.octets
            rename.append((name, part_name(needed[one.sha256])))
        else:
            drop.append(name)
    return Sorting(keep, parts, tuple(rename), tuple(drop))


class FetchPlan:
    """Of one manifest; calls in the order of events.

    Args:
        sender: for messages.
    """

    def __init__(self, manifest: Manifest, sorting: Sorting, sender: str, attempts_max: int = ATTEMPTS_MAX) -> None:
        self._sender, self._attempts_max = sender, attempts_max
        self._lines = {line.name: line for line in sorted(manifest.files, key=_order)}
        self._state = {name: FileState.DONE if name in sorting.keep else FileState.WANTED for name in self._lines}
        parts = dict(sorting.parts)
        self._have = dict.fromkeys(self._lines, 0)
        for name, line in self._lines.items():
            if self._state[name] is FileState.WANTED:
                self._have[name] = parts.pop(line.sha256, 0)  # one part serves one of two files with equal content
        self._failures = dict.fromkeys(self._lines, 0)
        self._total = manifest.octets

    @property
    def missing_octets(self) -> int:
        """To be fetched."""
        return sum(
            line.octets - self._have[name] for name, line in self._lines.items() if self._state[name] is not FileState.DONE
        )

    @property
    def done_octets(self) -> int:
        return self._total - self.missing_octets

    @property
    def finished(self) -> bool:
        return all(state is FileState.DONE for state in self._state.values())

    def begin(self) -> tuple[FileLine, int] | None:
        """The next file and the offset to go on from; None: none can be begun now."""
        coming = {line.sha256 for name, line in self._lines.items() if self._state[name] is FileState.COMING}
        for name, line in self._lines.items():
            if self._state[name] is FileState.WANTED and line.sha256 not in coming:  # one part a hash
                self._move(name, FileState.COMING)
                return line, self._have[name]
        return None

    def arrived(self, name: str, offset: int, octets: int) -> None:
        """A chunk came.

        Raises:
            ZaibeiError(MALFORMED): it is not the one that follows, or goes beyond the file's end.
        """
        line = self._lines.get(name)
        if line is None or self._state[name] is not FileState.COMING or offset != self._have[name] or octets < 1:
            raise ZaibeiError(
                Code.MALFORMED, f"{self._sender} sent {octets} octets of {name[:100]!r} at {offset}: not what was asked"
            )
        if offset + octets > line.octets:
            raise ZaibeiError(Code.MALFORMED, f"{self._sender} sent more of {name} than the {line.octets} octets it promised")
        self._have[name] = offset + octets

    def complete(self, name: str) -> bool:
        """All its octets came; its hash is still to be looked at."""
        return self._have[name] == self._lines[name].octets

    def judged(self, name: str, sha256: str) -> bool:
        """All octets of a file came and gave this hash. True: done. False: it is fetched anew, from the start.

        Raises:
            ZaibeiError(VERIFICATION_FAILED): it was wrong too often.
        """
        line = self._lines[name]
        require(self.complete(name), f"{name} is judged before it is complete")
        if sha256 == line.sha256:
            self._move(name, FileState.DONE)
            return True
        self._failures[name] += 1
        self._have[name] = 0
        if self._failures[name] >= self._attempts_max:
            self._move(name, FileState.FAILED)
            raise ZaibeiError(
                Code.VERIFICATION_FAILED,
                f"{name} came from {self._sender} {self._failures[name]} times with another content than it promised "
                f"(SHA-256 {sha256[:16]}, promised {line.sha256[:16]}): its disk is at fault, or the way; take another member",
            )
        self._move(name, FileState.WANTED)
        return False

    def broke(self, written: Mapping[str, int]) -> None:
        """The stream ended. What came is as far as it was written.

        Args:
            written: octets in the part of each file that was coming.
        """
        for name, state in self._state.items():
            if state is FileState.COMING:
                self._have[name] = written.get(name, self._have[name])
                self._move(name, FileState.WANTED)

    def _move(self, name: str, new: FileState) -> None:
        old = self._state[name]
        require(new in FILE_MOVES[old], f"a file cannot move from {old} to {new}")
        self._state[name] = new


def _order(line: FileLine) -> tuple[bool, str]:
    """What lasts comes first: should the rest be asked of another checkpoint, this stays of use."""
    return not line.name.endswith(LASTING_SUFFIXES), line.name
