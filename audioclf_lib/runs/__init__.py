"""Run folders on disk, and the locks that guard them."""
