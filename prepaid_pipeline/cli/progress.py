"""What a person sees while something takes longer than a second; nothing when nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar over several things of known size: gives ``on_progress(name, done, total)``."""
    if not sys.stderr.isatty():
        yield None
        return
    # 1,000 steps: the bar is drawn at most that often, however many lines there are.
    with click.progressbar(length=1000, file=sys.stderr, show_eta=False) as bar:

        def on_progress(name: str, done: int, total: int) -> None:
            steps = done * 1000 // max(total, 1) - bar.pos
            if steps or bar.label != name:
                bar.label = name
                bar.update(steps)

        yield on_progress


@contextmanager
def counter() -> Iterator[Callable[[str, int], None]]:
    """A line that counts, for work of unknown size: gives ``progress(what, how_many_more)``."""
    counts: dict[str, int] = {}

    def progress(what: str, more: int) -> None:
        counts[what] = counts.get(what, 0) + more
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{what}: {counts[what]:,}", nl=False, err=True)

    yield progress
    if counts and sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
