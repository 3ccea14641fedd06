"""A circuit breaker: a backend that is down is not asked over and over."""

from __future__ import annotations

import threading
import time

from research_env.errors import RetrievalUnavailable


class Circuit:
    """Closed while the backend answers, open after it has failed. While it is open, one call in each pause is a trial.

    Calls that arrive meanwhile wait for the trial and get its outcome: they go on, or they fail. Thread-safe.
    """

    def __init__(self, pause: float) -> None:
        """`pause`: seconds between trials."""
        self._pause = pause
        self._changed = threading.Condition()
        self._due: float | None = None  # time of the next trial; None while closed
        self._trying = False
        self._failed_trials = 0
        self._given_up = False
        self.reason = ""
        """The latest failure since the backend last answered."""

    def admit(self) -> bool:
        """Wait while the circuit is open; True where this call is to be the trial.

        Raises:
            RetrievalUnavailable: the trial that this call waited for has failed.
        """
        with self._changed:
            seen = self._failed_trials
            while self._due is not None:
                if self._failed_trials != seen or self._given_up:
                    raise RetrievalUnavailable(self.reason)
                left = self._due - time.monotonic()
                if left <= 0 and not self._trying:
                    self._trying = True
                    return True
                # While a trial runs, nobody knows when it ends: `judge` wakes all that wait.
                self._changed.wait(None if self._trying else left)
        return False

    def judge(self, trial: bool, reason: str | None) -> None:
        """Open the circuit after a call that failed for `reason`; close it after one that was answered (None)."""
        with self._changed:
            self._trying = self._trying and not trial
            self._failed_trials += trial and reason is not None  # wakes the calls that waited for this trial, to fail
            self.reason = reason or ""
            if reason is None:
                self._due = None
            # A call that began before the circuit opened and fails late must not delay the next trial.
            elif trial or self._due is None:
                self._due = time.monotonic() + self._pause
            self._changed.notify_all()

    def trouble(self) -> str | None:
        """Why the circuit is open; None while it is closed, or waits for a search to make the trial that is due."""
        with self._changed:
            due = self._due is not None and not self._trying and time.monotonic() >= self._due
            return None if self._due is None or due else self.reason

    def give_up(self) -> None:
        """End every wait with an error."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
