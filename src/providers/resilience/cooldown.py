"""A pause after the backend said "too many": one for all callers of a key, and over by itself."""

from __future__ import annotations

from typing import Final

FIRST: Final = 1.0
LONGEST: Final = 60.0


class Cooldown:
    """Until when nobody shall call. A time and not a flag, so that it cannot be left set.

    Each cooldown has a generation. Fifty calls that were under way together and all fail are one sign of too much, not
    fifty: only the first of a generation makes the next cooldown longer. No lock and no clock of its own.

    Args:
        first: seconds of the first cooldown, where the backend names none; each one right after it is twice as long.
        longest: most seconds of any cooldown, whatever the backend asks for.

    Attributes:
        generation: how many cooldowns there were.
        streak: how many of them since a call last went well.
        until: when the last one ends.
        since: when it was last set.
    """

    __slots__ = ("first", "generation", "longest", "since", "streak", "until")

    def __init__(self, first: float = FIRST, longest: float = LONGEST) -> None:
        self.first = first
        self.longest = longest
        self.generation = 0
        self.streak = 0
        self.until = 0.0
        self.since = 0.0

    def remaining(self, now: float) -> float:
        """Seconds that are left, 0 where nobody has to wait."""
        if now >= self.until:
            return 0.0
        if now < self.since:
            # The clock was set back; the cooldown must not become longer by that.
            self.until, self.since = now + (self.until - self.since), now
        return min(self.until - now, self.longest)

    def begin(self, now: float, seen: int, retry_after: float | None = None) -> bool:
        """Begin a cooldown, or make the one that runs longer.

        Args:
            now: the time.
            seen: the generation in which the failed call began.
            retry_after: seconds that the backend asked for; one below 0, or no number, counts as none.

        Returns:
            Whether a new cooldown began. A call of an older generation only passes on what the backend asked for.
        """
        # Asked for an end, since a clock that was set back has to be noticed before `since` changes.
        end = now + self.remaining(now)
        hint = retry_after if retry_after is not None and retry_after > 0 else None
        # Of a later generation than is known here, where the state was lost meanwhile.
        self.generation = max(self.generation, seen)
        fresh = seen == self.generation
        if fresh:
            self.generation += 1
            self.streak += 1
            wait = hint if hint is not None else self.first * 2.0 ** min(self.streak - 1, 30)
        elif hint is not None:
            wait = hint
        else:
            return False
        self.until, self.since = max(end, now + min(wait, self.longest)), now
        return fresh

    def passed(self, seen: int) -> None:
        """Note a call that went well; one that began before the last cooldown says nothing."""
        if seen == self.generation:
            self.streak = 0
