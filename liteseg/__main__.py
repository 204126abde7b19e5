"""`python -m liteseg`."""

import sys

from liteseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
