"""Every figure of the notebooks and the report: functions ``(data, *, ax=None, figsize=..., **kwargs) -> Axes``.

Each draws on the axes it is given, or on a pyplot figure of its own, so that a notebook shows it below the cell that
ends with it. ``kwargs`` go on to seaborn or matplotlib. ``plot_learning_curves``, ``plot_variants``,
``plot_confusion_with_f1``, ``plot_roc_panels``, ``plot_clips``, ``plot_classes``, ``plot_hard_clips`` and
``plot_folds`` draw several panels and return an array of axes.

The look is in ``audioclf.mplstyle``. Importing this package applies it once, with ``plt.style.use``, so that a
notebook's own plots share it. Settings made after the import hold for all figures: ``plt.rcParams["font.size"] = 10``,
another ``plt.style.use(...)``, or ``plt.rcdefaults()`` for matplotlib's own look. All figures are vector graphics (heat
maps are meshes, not images), so that PDF and SVG stay sharp, and can be read in grey.
"""

from audioclf_lib.figures.answers import plot_answers as plot_answers
from audioclf_lib.figures.answers import plot_clip_map as plot_clip_map
from audioclf_lib.figures.answers import plot_occlusion as plot_occlusion
from audioclf_lib.figures.curves import plot_learning_curves as plot_learning_curves
from audioclf_lib.figures.curves import plot_variants as plot_variants
from audioclf_lib.figures.errors import plot_hard_clips as plot_hard_clips
from audioclf_lib.figures.errors import plot_recall_by_class as plot_recall_by_class
from audioclf_lib.figures.models import plot_architecture as plot_architecture
from audioclf_lib.figures.models import plot_attention as plot_attention
from audioclf_lib.figures.models import plot_filters as plot_filters
from audioclf_lib.figures.models import plot_folds as plot_folds
from audioclf_lib.figures.scores import plot_comparison as plot_comparison
from audioclf_lib.figures.scores import plot_confusion as plot_confusion
from audioclf_lib.figures.scores import plot_confusion_with_f1 as plot_confusion_with_f1
from audioclf_lib.figures.scores import plot_f1_bars as plot_f1_bars
from audioclf_lib.figures.scores import plot_reliability as plot_reliability
from audioclf_lib.figures.scores import plot_roc_panels as plot_roc_panels
from audioclf_lib.figures.sounds import plot_classes as plot_classes
from audioclf_lib.figures.sounds import plot_clips as plot_clips
from audioclf_lib.figures.sounds import plot_mel_spectrogram as plot_mel_spectrogram
from audioclf_lib.figures.sounds import plot_silence_per_class as plot_silence_per_class
from audioclf_lib.figures.sounds import plot_waveform as plot_waveform
from audioclf_lib.figures.sounds import plot_windows as plot_windows
from audioclf_lib.figures.style import STYLE as STYLE
from audioclf_lib.figures.style import TEXT_WIDTH as TEXT_WIDTH
