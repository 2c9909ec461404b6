"""The log: lines on stderr, for whoever collects them."""

import logging


def log_to_stderr() -> None:
    """For the console script and for each worker, which starts without the script's settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
