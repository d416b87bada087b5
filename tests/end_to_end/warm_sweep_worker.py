"""Runs ``mta``; what a sweep launches starts warm, in the process group of the sweep."""

import sys
from unittest import mock

from warm_python import WarmPython

from mta_framework.cli import main
from mta_framework.sweeps import pool

if __name__ == "__main__":
    with mock.patch.object(pool, "launch", WarmPython().launch):
        main(sys.argv[1:])
