"""``python -m mta_framework`` is ``mta``."""

from mta_framework.cli import main

main()
