"""`python -m hybriddepth_ros` is the `hybriddepth` command."""

import sys

from hybriddepth_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
