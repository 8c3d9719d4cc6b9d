"""One fit: batches, optimisation, epochs, checkpoints; ``accelerate`` is the fast path, which a reader may skip."""

from audioclf_lib.training.epochs import DivergedError
from audioclf_lib.training.parallel import fit_all
from audioclf_lib.training.trainer import fit

__all__ = ["DivergedError", "fit", "fit_all"]
