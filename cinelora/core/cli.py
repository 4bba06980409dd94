"""What every command shares: the error of bad input, the parser, the exit status, progress. Standard library only."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from typing import NoReturn

SECONDS_BETWEEN_LINES = 5.0


class UserError(Exception):
    """Bad input: one line naming the file or field, the value and the remedy."""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are UserErrors: one line instead of usage and message."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def exit_status(command: Callable[[], int | None], quiet: bool = False, stopped: str = "stopped") -> int:
    """Run a command. Returns its own status (None: 0), 2 after one line for a UserError or for a file that the system
    refuses, 130 after Ctrl-C.

    `quiet`: print no line, as the processes of a group do but the first. `stopped`: the line after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show, e.g. in ASCII, comes as \xb1
            stream.reconfigure(errors="backslashreplace")
    try:
        return command() or 0
    except UserError as error:
        status, text = 2, str(error)
    except OSError as error:
        if error.filename is None:
            raise
        status, text = 2, f"{error.filename}: {error.strerror}"
    except KeyboardInterrupt:
        status, text = 130, stopped
    if not quiet:
        print(f"cinelora: {text}", file=sys.stderr)
    return status


def number(amount: float) -> str:
    """Three digits, from 1,000 on whole."""
    return f"{amount:,.0f}" if amount >= 1000 else f"{amount:.3g}"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds: 75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts and the time left on stderr: one line rewritten on a terminal, elsewhere a line every few seconds.

        progress = Progress("clips")
        progress("decoding", done, total)      # decoding 12/96 clips, about 0:41 left

    The time left takes the pace since the first call of the stage.
    """

    def __init__(self, unit: str, quiet: bool = False) -> None:
        self.unit, self.quiet = unit, quiet
        self._stage, self._first, self._started, self._printed = "", 0, 0.0, time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first, self._started = stage, done, now
        text = f"{stage} {done}/{total} {self.unit}"
        if self._first < done < total:
            text += f", about {clock((now - self._started) / (done - self._first) * (total - done))} left"
        if self.quiet:
            return
        if sys.stderr.isatty():
            print(f"\r{text:<78}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done == total or now - self._printed > SECONDS_BETWEEN_LINES:
            self._printed = now
            print(text, file=sys.stderr, flush=True)
