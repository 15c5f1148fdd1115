"""`python -m invdiff` is `invdiff`."""

import sys

from invdiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
