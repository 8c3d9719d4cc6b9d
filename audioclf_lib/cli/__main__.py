"""``python -m audioclf_lib.cli``."""

from audioclf_lib.cli import main

main()
