"""`python -m longtail`, for torchrun: ``torchrun --nproc-per-node 4 -m longtail train DATA``."""

from __future__ import annotations

from longtail.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
