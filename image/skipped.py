"""What class folders hold that is not trained on: counted, said on one line, and recorded."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from core.io.errors import InputError
from core.io.files import readable

MAX_NAMED = 20  # files, or extensions, in a message


@dataclass
class Skipped:
    """Filled while folders are listed and images are decoded."""

    skip_unreadable: bool = False
    hidden: int = 0  # files and folders
    extensions: Counter[str] = field(default_factory=Counter)  # of files that are not images
    outside: int = 0  # images that are in no class folder
    unused: list[str] = field(default_factory=list)  # folders beside the splits
    unreadable: dict[str, str] = field(default_factory=dict)  # what is wrong with an image, by path
    several_frames: int = 0  # images of which the first frame is used

    def check(self) -> None:
        """Raise InputError, which names the unreadable images, unless they are to be skipped."""
        if self.skip_unreadable or not self.unreadable:
            return
        several = f"{len(self.unreadable):,} unreadable images: " if len(self.unreadable) > 1 else ""
        raise InputError(
            f"{several}{self._named()}; repair or remove {'them' if several else 'it'}, or set "
            "`skip_unreadable` to continue without"
        )

    def describe(self) -> str:
        """All counts on one line; empty if there is nothing to say."""
        extensions, folders = counts_of(self.extensions), ", ".join(self.unused)
        skipped = [
            f"{self.extensions.total():,} of other file types ({extensions})" if extensions else "",
            f"{self.hidden:,} hidden" if self.hidden else "",
            f"{self.outside:,} outside of class folders" if self.outside else "",
            f"folders that are not used ({folders})" if folders else "",
            f"{len(self.unreadable):,} unreadable ({self._named()})" if self.unreadable else "",
        ]
        parts = [f"skipped: {'; '.join(filter(None, skipped))}"] if any(skipped) else []
        if self.several_frames:
            parts.append(f"only the first frame is used of {self.several_frames:,} images with several")
        return "; ".join(parts)

    def as_record(self) -> dict[str, Any]:
        """What a run's record holds of it: the counts that are not 0, and the unreadable images."""
        record = vars(self) | {
            "extensions": dict(self.extensions),
            "unused": [readable(name) for name in self.unused],
            "unreadable": {readable(path): fault for path, fault in self.unreadable.items()},
        }
        return {name: value for name, value in record.items() if value and name != "skip_unreadable"}

    def _named(self) -> str:
        """The unreadable images and what is wrong with them, those with the same fault together."""
        by_fault: dict[str, list[str]] = {}
        for path, fault in islice(self.unreadable.items(), MAX_NAMED):
            by_fault.setdefault(fault, []).append(path)
        named = [readable(f"{', '.join(paths)} {fault}") for fault, paths in by_fault.items()]
        more = len(self.unreadable) - MAX_NAMED
        return "; ".join([*named, f"and {more:,} more"] if more > 0 else named)


def counts_of(extensions: Counter[str]) -> str:
    """Counts by extension, the largest first, such as ``3 .txt, 1 without extension``."""
    named = sorted(extensions.items(), key=lambda item: (-item[1], item[0]))[:MAX_NAMED]
    rest = extensions.total() - sum(count for _, count in named)
    parts = [f"{count:,} {name or 'without extension'}" for name, count in named]
    return ", ".join([*parts, f"{rest:,} others"] if rest else parts)
