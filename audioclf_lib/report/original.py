"""What the original course report states of its results, for comparison.

Every number is one that its text or its printed lists give; what it shows only as a picture is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

ORIGINAL_DATASET = "esc10"


@dataclass(frozen=True)
class OriginalResult:
    """Numbers of one experiment of the original report; None where it states none.

    Attributes:
        accuracy: of the test windows.
        auc: area under the ROC curve, as stated for all classes together.
        train_accuracy, validation_accuracy: final values of the curves.
        f1: per class, in class order.
        remark: what else is stated, one short phrase.
    """

    accuracy: float | None
    auc: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    f1: tuple[float, ...] | None = None
    remark: str = ""


CNN_F1 = (
    *(0.23636364, 0.10714286, 0.10638298, 0.51401869, 0.48175182),
    *(0.4375, 0.6259542, 0.54222222, 0.62105263, 0.08080808),
)
ONE_CLASS_F1 = 0.18181818  # what a constant prediction scores on its class when there are ten of equal size

ORIGINAL: dict[str, OriginalResult] = {
    "cnn-kfold": OriginalResult(305 / 720, 0.68, 0.75, 0.72, CNN_F1, "305 of 720 test windows right"),
    "cnn-split": OriginalResult(0.0916, remark="cause not found by its author"),
    "transformer-h1-kfold": OriginalResult(0.10, 0.50, 0.10, 0.10, remark="one class predicted for every window"),
    "transformer-h1-split": OriginalResult(None, remark="one class predicted for every window"),
    "transformer-h2-kfold": OriginalResult(0.10, 0.50, 0.10, 0.10, remark="one class predicted for every window"),
    "transformer-h2-split": OriginalResult(None, remark="one class predicted for every window"),
    "transformer-h4-kfold": OriginalResult(0.10, 0.50, 0.10, 0.10, remark="one class predicted for every window"),
    "transformer-h4-split": OriginalResult(None, remark="one class predicted for every window"),
}
