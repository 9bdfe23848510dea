"""Stop texts in a stream: nothing is shown that could still turn out to be the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Passes text on until one of the stop texts appears, wherever the pieces of the stream are cut."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Take the next piece of the stream and return the text that has become certain.

        Once a stop text is complete, `stopped` is true and the text before it has been returned. The one that
        is complete first counts (of several, the longest), so that the cuts of the stream make no difference.
        """
        self._held += piece
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found)[1], keep=False)
        return self._release(len(self._held) - self._unsafe_suffix())

    def flush(self) -> str:
        """The text still held back, which ended without becoming a stop text."""
        return self._release(len(self._held))

    def _release(self, count: int, *, keep: bool = True) -> str:
        text, rest = self._held[:count], self._held[count:]
        self._held = rest if keep else ""
        return text

    def _unsafe_suffix(self) -> int:
        """Length of the longest end of the held text that begins a stop text."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            suffix = self._held[-length:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return length
        return 0
