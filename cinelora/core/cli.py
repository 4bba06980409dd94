"""The error that is the user's to mend: one line naming the file or field, the value, the remedy."""

import argparse
import sys
import time
from typing import NoReturn


class UserError(Exception):
    """Bad input. Entry points print the message alone and exit with status 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)  # one line instead of argparse's usage and message


SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts on stderr: one line that is rewritten on a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        text = f"{stage} {done}/{total} clips"
        if sys.stderr.isatty():
            print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done == total or time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)
