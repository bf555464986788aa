"""Passwords: argon2id hashes with the library's current parameters (RFC 9106, low memory)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from prepaid_pipeline.errors import NotAllowed

SHORTEST, LONGEST = 12, 256
_HASHER = PasswordHasher()
# Each check takes 64 MiB and a processor for 50 ms: more of them at once would let sign-in attempts
# use up the memory, and more that wait the threads that all requests share.
_AT_ONCE, _IN_LINE = BoundedSemaphore(4), BoundedSemaphore(16)


def hashed(password: str) -> str:
    """The hash to store. Raises NotAllowed for a password that is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise NotAllowed(f"a password has {SHORTEST} to {LONGEST} characters")
    return _HASHER.hash(password)


def fits(password: str, stored: str | None) -> bool:
    """Whether the password is the one stored; takes as long where there is none."""
    try:
        with _AT_ONCE:
            return _HASHER.verify(stored or _nobodys(), password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


@contextmanager
def in_line() -> Iterator[None]:
    """A place among those whose passwords are checked; NotAllowed when there are too many."""
    if not _IN_LINE.acquire(blocking=False):
        raise NotAllowed("too many people are signing in at this moment: try again in a minute")
    try:
        yield
    finally:
        _IN_LINE.release()


@cache
def _nobodys() -> str:
    return _HASHER.hash("the password of nobody")
