"""The lock of a model on an object store: a lease, since a store cannot notice that a holder died.

A lock is an object ``lock-000042`` next to the repository. It is created only if it does not exist
(If-None-Match); the store decides, so one of several concurrent attempts succeeds. Numbers only
grow:

- The lock with the highest number is the valid one. To acquire it, a process creates the next
  number, and holds the lock only if that number is still the highest afterwards: a slow process may
  have created a number that was deleted meanwhile.
- A released lock stays as a tombstone, and the next holder deletes the numbers below its own, so
  there is always a highest number to count from.

A holder rewrites its lock every quarter of the lease. For others the lease has expired if that did
not happen for a whole lease *by the store's clock*: a probe object is written, and only then the
time of the lock is read, so a renewal in between is noticed. Store clocks count in seconds, hence
one second of grace. For a holder on this machine the kernel tells whether it is alive.

The holder measures from before its last renewal request, by a clock that continues while the
machine sleeps, so its lease expires for itself before it expires for others. An expired lease is
never renewed, since others may have noticed. Before a visible change, `Lease.check` verifies that
the number is still the highest and that there is time left for one more request. Not covered is a
process that is suspended between this check and its next request for longer than a third of a
lease: object stores support no condition on another object.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from exporter.bounded_text import UNFIT, parse_json
from exporter.errors import ConflictError, StlabError, UsageError
from exporter.repository.object_store import ObjectStore
from exporter.system.processes import ProcessId

__all__ = ["LEASE_SECONDS", "Lease"]

LEASE_SECONDS = 60.0
_LONGEST_SECONDS = 3600.0
_GRACE_SECONDS = 1.0
_LOCK = re.compile(r"lock-([0-9]{6,18})")
_TRIES = 8
_RENEWALS, _RESERVE = 4, 3


class Lease:
    """A model's lock on an object store, while this process holds it."""

    def __init__(self, locks: _Locks, number: int, content: dict[str, Any], since: float) -> None:
        self._locks = locks
        self._number = number
        self._content = content
        self._seconds = float(content["seconds"])
        self._end = since + self._seconds
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)

    @classmethod
    @contextmanager
    def open(
        cls, store: ObjectStore, folder: str, model: str, seconds: float = LEASE_SECONDS
    ) -> Iterator[Lease]:
        """Acquire the lock of a model, renew it in the background, and release it at the end.

        For ``seconds`` the lock outlives a holder that died on another machine.

        Raises:
            ConflictError: Another exporter holds the lock; the message names it.
            UsageError: The store does not support conditional writes.
        """
        locks = _Locks(store, folder, model)
        content = {
            "seconds": seconds,
            "token": uuid.uuid4().hex,
            **ProcessId.this_process().as_dict(),
        }
        number, since = locks.acquire(content)
        lease = cls(locks, number, content, since)
        try:
            lease._renewer.start()
            locks.clean(number)
            yield lease
        finally:
            lease._release()

    def check(self) -> None:
        """Check that the lock is still held, with time left for one more request.

        Raises:
            ConflictError: The lock was lost.
            UnavailableError: The store does not answer.
        """
        with self._guard:
            if self._seconds_left() < self._seconds / _RESERVE:
                self._renew()
            expires = self._seconds_left() < self._seconds / _RESERVE
            if expires or self._locks.highest() != self._number:
                raise self._lost()

    def _seconds_left(self) -> float:
        return self._end - _now()

    def _renew(self) -> None:
        requested = _now()
        if self._seconds_left() <= 0 or self._locks.highest() != self._number:
            raise self._lost()
        self._locks.write(self._number, self._content)
        if self._seconds_left() <= 0:
            raise self._lost()
        self._end = requested + self._seconds

    def _renew_until_over(self) -> None:
        while not self._over.wait(self._seconds / _RENEWALS):
            with self._guard:
                try:
                    self._renew()
                except ConflictError:
                    self._end = 0.0
                    return
                except StlabError:
                    continue  # the store may recover before the lease expires

    def _release(self) -> None:
        self._over.set()
        if self._renewer.is_alive():
            self._renewer.join()
        # If the store does not answer, the lease expires by itself.
        with suppress(StlabError):
            if self._locks.highest() == self._number:
                self._locks.write(self._number, {**self._content, "released": True})
            else:
                self._locks.delete(self._number)

    def _lost(self) -> ConflictError:
        return ConflictError(
            f"the lock of '{self._locks.model}' was lost: this process or the store did not "
            f"respond for longer than {self._seconds:g} s, and another export may be running",
            hint="Run the same command again; it finishes what this one began.",
        )


class _Locks:
    """The lock objects of one model."""

    def __init__(self, store: ObjectStore, folder: str, model: str) -> None:
        self.store = store
        self.folder = folder
        self.model = model

    def acquire(self, content: dict[str, Any]) -> tuple[int, float]:
        """Create the valid lock; return its number, and the time from which it is held."""
        for _ in range(_TRIES):
            last = self.highest()
            if last and not self._is_free(last):
                continue  # another process has just deleted it
            number, since = last + 1, _now()
            encoded = _encode(content)
            if not self.store.create(self._name(number), encoded):
                continue
            if self.highest() != number:
                self.delete(number)
                continue
            if self.store.create(self._name(number), encoded + b"\n"):
                self.delete(number)
                raise UsageError(
                    f"the store of {self.store.address} ignores conditional writes "
                    "(If-None-Match), so concurrent exports could not exclude each other",
                    hint="Use a store that supports them, or a local folder.",
                )
            return number, since
        raise ConflictError(
            f"other exports of '{self.model}' keep acquiring its lock",
            hint="Wait for them to end, then run the same command again.",
        )

    def highest(self) -> int:
        """Return the number of the valid lock; 0 if there was none yet."""
        return max(self._numbers(), default=0)

    def write(self, number: int, content: dict[str, Any]) -> None:
        self.store.replace(self._name(number), _encode(content))

    def delete(self, number: int) -> None:
        self.store.delete(self._name(number))

    def clean(self, number: int) -> None:
        """Delete the locks below a number, and left-over probes."""
        for name in self.store.list(self.folder):
            found = _LOCK.fullmatch(name)
            if name.startswith("probe-") or (found is not None and int(found[1]) < number):
                self.store.delete(f"{self.folder}/{name}")

    def _is_free(self, number: int) -> bool:
        """Whether a lock was released or has expired; False if it no longer exists.

        Raises:
            ConflictError: The lock is held.
        """
        raw = self.store.read(self._name(number))
        if raw is None:
            return False
        content = _decode(raw)
        holder = ProcessId.read(content)
        if content.get("released") is True or holder.has_died():
            return True
        age, seconds = self._age(number), float(content["seconds"])
        if age is None:
            return False
        if age > timedelta(seconds=seconds + _GRACE_SECONDS):
            return True
        rest = max(0.0, seconds + _GRACE_SECONDS - age.total_seconds())
        raise ConflictError(
            f"another export of '{self.model}' to this repository is running ({holder}); its lock "
            f"expires in {rest:.0f} s unless it is renewed",
            hint="Wait for it to end, then run the same command again.",
        )

    def _age(self, number: int) -> timedelta | None:
        """Return the age of a lock by the store's clock; None if it no longer exists."""
        probe = f"{self.folder}/probe-{uuid.uuid4().hex}"
        self.store.replace(probe, b"")
        try:
            now, then = self.store.written(probe), self.store.written(self._name(number))
        finally:
            self.store.delete(probe)
        return None if now is None or then is None else now - then

    def _numbers(self) -> list[int]:
        found = (_LOCK.fullmatch(name) for name in self.store.list(self.folder))
        return [int(match[1]) for match in found if match is not None]

    def _name(self, number: int) -> str:
        return f"{self.folder}/lock-{number:06d}"


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _decode(raw: bytes) -> dict[str, Any]:
    """Return the content of a lock; an unreadable one counts as held by an unknown process."""
    try:
        content = dict(parse_json(raw))
        seconds = float(content["seconds"])
    except UNFIT:
        return {"seconds": LEASE_SECONDS}
    return {**content, "seconds": seconds if 0 < seconds <= _LONGEST_SECONDS else LEASE_SECONDS}


def _now() -> float:
    """Return seconds by a clock that continues while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
