"""The architectures, and how to add one in a file of your own.

``cnn`` and ``conv_transformer`` define the two architectures of the assignment, ``registry`` knows all by name,
``derivation`` derives output shapes and parameter counts by formula. Naming an architecture loads no torch.
"""

from audioclf_lib.models.registry import ModelEntry, create_model, find_model, register_model

__all__ = ["ModelEntry", "create_model", "find_model", "register_model"]
