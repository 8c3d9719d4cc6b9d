"""What some settings may be: known without pydantic, which takes long to import."""

from __future__ import annotations

from typing import Literal

ProtocolName = Literal["kfold", "split", "rotation"]
RecipeName = Literal["as-written", "tuned"]
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
LogName = Literal["none", "tensorboard", "wandb"]
