"""One process of the two workers of conftest.py: `python -m tests.cinelora.training.pair_member ROOT RANK PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

from cinelora import distributed
from tests.cinelora.training import full_size_member, gang_member

if __name__ == "__main__":
    root, rank, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    distributed.start(rank, 2, "127.0.0.1", port)
    gang_member.main(root, rank)
    full_size_member.main(root, rank)
