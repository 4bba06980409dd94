"""A page in headless Chromium: what its scripts leave in the attributes of <html>, where tests read it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
BUDGETS = (45_000, 180_000)  # virtual milliseconds: a busy machine decodes pictures while virtual time runs on


def attributes(
    page: Path, until: str, driver: str = "", fragment: str = "", budgets: tuple[int, ...] = BUDGETS
) -> dict[str, str]:
    """The data attributes of <html>, once it has `until`, of a copy of `page` that also runs `driver`."""
    for budget in budgets:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            driven = Path(folder) / "driven.html"
            driven.write_text(page.read_text().replace("</body>", f"<script>{driver}</script></body>"))
            command = [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
                f"--virtual-time-budget={budget}", "--dump-dom", driven.as_uri() + fragment,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        head = done.stdout.partition("<head")[0]
        found = {name: html.unescape(text) for name, text in re.findall(r'data-(\S+?)="(.*?)"', head)}
        if until in found:
            return found
    raise AssertionError(f"no {until}: {head[:500]} {done.stderr[-500:]}")
