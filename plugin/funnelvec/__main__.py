"""``python -m funnelvec`` is the command ``funnelvec``."""

from __future__ import annotations

import sys

from funnelvec.cli import main

if __name__ == "__main__":
    sys.exit(main())
