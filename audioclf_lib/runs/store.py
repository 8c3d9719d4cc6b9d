"""Run folders: the only module that reads or writes them.

``<runs_dir>/<dataset>/<fit id>/`` holds one finished fit. It is written under a temporary name and renamed when
complete, so a folder that exists is whole; a checksum of every file tells whether it still is, and a file that is
something else is not read. What an unfinished fit needs to go on lies in ``.<fit id>.partial/``, and folders that were
found damaged in ``damaged/``. ``<runs_dir>/<dataset>/baselines-<fingerprint>.parquet`` holds a data set's baselines.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from glob import escape
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from audioclf_lib._support.errors import DamagedRunError, InputError, quote
from audioclf_lib._support.locks import hold_lock
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PUBLISHED_DIR, explained, replace_file, user_path
from audioclf_lib.config import SCHEMA_VERSION, DatasetFacts, FitConfig, KnownDataset
from audioclf_lib.models.registry import find_model, made_with, model_in_file
from audioclf_lib.runs.checksums import SUMS, sum_line, sum_of, write_sums

if TYPE_CHECKING:  # torch and pandas are imported where they are used: locks and a list of runs need neither
    import pandas as pd
    from torch import Tensor

    from audioclf_lib.runs.trained import TrainedModel

CONFIG, HISTORY, PREDICTIONS, METRICS = "config.json", "history.csv", "predictions.parquet", "metrics.json"
WEIGHTS, ENVIRONMENT, CHECKPOINT = "weights.safetensors", "environment.json", "checkpoint.pt"
ARTEFACTS = (CONFIG, HISTORY, PREDICTIONS, METRICS, WEIGHTS, ENVIRONMENT)
TABLE_SUM = "sha256"  # with a table that is a file of its own: the sum of its names and values
MODEL = "model.py"  # the file of an own architecture; the assigned ones have none

_Value = TypeVar("_Value")
_explained = partial(explained, remedy="free space or choose another runs_dir")


@dataclass(frozen=True)
class Run:
    """A finished fit; its artefacts are read when asked for.

    Attributes:
        path: the run folder.
        config: what determined the result.
    """

    path: Path
    config: FitConfig

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: epoch, seconds, learning_rate, {train,validation,test}_{loss,accuracy,clip_accuracy}."""
        import pandas as pd

        return _read(self.path / HISTORY, lambda content: pd.read_csv(io.BytesIO(content)))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per window: split, clip_id, source, fold, window_index, silent, y_true, p_0 ... p_(classes-1)."""
        import pandas as pd

        columns = ["split", "clip_id", "source", "fold", "window_index", "silent", "y_true"]
        columns += [f"p_{label}" for label in range(len(self.config.class_names))]
        table = _read(self.path / PREDICTIONS, lambda content: pd.read_parquet(io.BytesIO(content)))
        if missing := [name for name in columns if name not in table]:
            raise _damaged(self.path / PREDICTIONS, f"no column {missing[0]!r}")
        return table

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Scores per split at window and clip level, and which epoch was chosen by what rule."""
        values = _read(self.path / METRICS, _parse_json)
        if not isinstance(values.get("scores"), dict):
            raise _damaged(self.path / METRICS, "no scores")
        return values

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, threads, commit, wall time."""
        return _read(self.path / ENVIRONMENT, _parse_json)

    @property
    def has_weights(self) -> bool:
        return (self.path / WEIGHTS).exists()

    @property
    def is_own(self) -> bool:
        """True if the architecture is an own one, whose file is kept as ``model.py``."""
        return (self.path / MODEL).exists() or f"  {MODEL}\n".encode() in _read_bytes(self.path / SUMS)

    def check(self) -> None:
        """Read all that a report needs.

        Raises:
            DamagedRunError: an artefact is missing or damaged.
        """
        _ = self.history, self.predictions, self.metrics, self.environment

    def verify(self) -> None:
        """Compare every artefact with its checksum.

        Raises:
            DamagedRunError: an artefact is missing or damaged.
        """
        for name in (*ARTEFACTS, MODEL) if self.is_own else ARTEFACTS:
            if name != WEIGHTS or self.has_weights:
                _read(self.path / name, len)

    def weights(self) -> OrderedDict[str, Tensor]:
        """The chosen epoch's weights and batch-norm statistics, as ``nn.Module.load_state_dict`` takes them.

        They carry the settings of the model that they belong to; one of ``create_model`` with others refuses them.

        Raises:
            InputError: the run was published without its weights.
        """
        if not self.has_weights:
            raise InputError(
                f"{self.path} holds no {WEIGHTS}: published runs keep few; train the fit in another runs_dir"
            )
        return _read(self.path / WEIGHTS, _parse_weights)

    def model(self) -> TrainedModel:
        """The trained network in eval mode on the CPU: windows (B, 1, 16000) as cut from clips -> logits (B, classes).

        It has the settings, the weights and the input normalisation that it was trained with. For an own architecture
        this runs the code in the run folder's ``model.py``.

        Raises:
            InputError: the run has no weights, or the architecture is unknown or has changed since.
        """
        from audioclf_lib.runs.trained import TrainedModel

        config = self.config
        if self.is_own:
            _read(self.path / MODEL, len)
            entry = model_in_file(self.path / MODEL, config.model)
        else:
            entry = find_model(config.model)
        if entry.digest != config.model_digest:
            raise InputError(
                f"{self.path} was trained with another version of the model {config.model} ({config.model_digest}, not "
                f"{entry.digest}); check out the version that {ENVIRONMENT} names, or train the fit again"
            )
        settings = config.model_settings
        network = entry.create_for(config.recipe_settings, num_classes=len(config.class_names), **settings)
        network.load_state_dict(self.weights())
        return TrainedModel(network, config.recipe_settings).eval()


class RunStore:
    """The run folders below ``runs_dir``.

    Args:
        runs_dir: created when the first fit is written; ``~`` is the home folder.
    """

    def __init__(self, runs_dir: Path | str) -> None:
        self.runs_dir = user_path(runs_dir)

    def path(self, config: FitConfig) -> Path:
        """Where the fit's run folder is or will be."""
        return self.runs_dir / config.dataset / config.fit_id

    def exists(self, config: FitConfig) -> bool:
        """True if the fit has been trained.

        Raises:
            InputError: a file stands where its run folder would be.
        """
        path = self.path(config)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file in the place of a run folder; move it away")
        return path.is_dir()

    def refuse_others(self, configs: Iterable[FitConfig]) -> None:
        """Raise InputError if something else is in the place of a fit's run folder; a damaged one is its own."""
        for config in configs:
            with suppress(DamagedRunError):
                _ = self.exists(config) and self.load(config)

    def load(self, config: FitConfig) -> Run:
        """The finished fit of ``config``.

        Raises:
            InputError: it has not been trained, or its folder is damaged.
        """
        if not self.exists(config):
            raise InputError(f"fit {config.fit_id} is not in {self.runs_dir}; train it with `audioclf suite`")
        return _read_in_place(self.path(config))

    def damage(self, config: FitConfig) -> str | None:
        """Which file of the fit is damaged and how: of its run folder or, if it has none yet, its checkpoint.

        Raises:
            InputError: something else is in the place of its run folder.
        """
        try:
            if self.exists(config):
                self.load(config).verify()
            else:
                self.load_checkpoint(config)
        except DamagedRunError as damaged:
            return damaged.what
        return None

    def is_whole(self, config: FitConfig) -> bool:
        """True if the fit has been trained and every file of it is as it was written."""
        return self.exists(config) and self.damage(config) is None

    def set_aside(self, config: FitConfig) -> str:
        """Move a fit's damaged folder to ``damaged/``, or remove its damaged checkpoint; says which of the two."""
        path = self.path(config)
        if not path.exists():
            (self._partial(config) / CHECKPOINT).unlink(missing_ok=True)
            return "it is removed"
        names = chain([path.name], (f"{path.name}-{number}" for number in count(2)))
        aside = next(folder for name in names if not (folder := path.parent / "damaged" / name).exists())
        with _explained(aside):
            aside.parent.mkdir(exist_ok=True)
            os.rename(path, aside)
        return f"its folder is kept as {aside}"

    def scan(self, dataset: str | None = None) -> tuple[list[Run], list[InputError]]:
        """All finished fits, ordered by fit id, and one error for each run folder that cannot be read.

        Folders that are no run folders are left out.

        Args:
            dataset: name of a data set; all unless given.
        """
        runs: list[Run] = []
        errors: list[InputError] = []
        for path in self._folders(escape(dataset) if dataset else "*"):
            try:
                runs.append(_read_in_place(path))
            except InputError as error:
                errors.append(error)
        return runs, errors

    def find(self, dataset: str | None = None, **criteria: Any) -> list[Run]:
        """All finished fits whose configuration has these values, ordered by fit id; see ``scan`` for damaged ones."""
        runs = self.scan(dataset)[0]
        return [run for run in runs if all(getattr(run.config, key) == value for key, value in criteria.items())]

    def known_datasets(self, slug: str) -> list[KnownDataset]:
        """The data sets with runs whose name is ``slug``, or ``slug`` with the digest of another content behind it."""
        pattern = re.compile(rf"{re.escape(slug)}(-[0-9a-f]{{8}})?")
        names = sorted(path.name for path in self.runs_dir.glob("*") if pattern.fullmatch(path.name))
        known = [run.config.known_dataset for name in names for run in self.find(name)]
        return list({each.fingerprint: each for each in known}.values())

    def _folders(self, dataset: str = "*") -> list[Path]:
        """Run folders, also damaged ones, of the data sets whose name fits a pattern."""
        files = [path for name in (CONFIG, SUMS) for path in self.runs_dir.glob(f"{dataset}/*/{name}")]
        return sorted({path.parent for path in files if not path.parent.name.startswith(".")})

    def save(
        self,
        config: FitConfig,
        *,
        history: pd.DataFrame,
        predictions: pd.DataFrame,
        metrics: dict[str, Any],
        weights: dict[str, Tensor],
        environment: dict[str, Any],
        model_source: str | None = None,
    ) -> Run:
        """Write a run folder under a temporary name, then rename it; its checkpoint is no longer needed.

        Args:
            model_source: text of the file of an own architecture.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        from safetensors import torch as safetensors

        recipe_values = config.recipe_settings.model_dump()
        made = made_with(find_model(config.model), len(config.class_names), config.model_settings, recipe_values)
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        target = self.path(config)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.draft")
        with _explained(target):
            try:
                draft.mkdir(parents=True)
                _write_json(draft / CONFIG, config.model_dump(mode="json"))
                history.to_csv(draft / HISTORY, index=False)
                # Probabilities are all different: a dictionary of them makes the file a third larger.
                repetitive = [name for name in map(str, predictions) if not name.startswith("p_")]
                # By way of memory, also in checkpoints: a full disk is a plain OSError only where Python writes.
                (draft / PREDICTIONS).write_bytes(
                    predictions.to_parquet(None, index=False, compression="zstd", use_dictionary=repetitive)
                )
                _write_json(draft / METRICS, metrics)
                (draft / WEIGHTS).write_bytes(safetensors.save(tensors, {"audioclf": json.dumps(made)}))
                _write_json(draft / ENVIRONMENT, environment)
                if model_source is not None:
                    (draft / MODEL).write_bytes(model_source.encode())
                write_sums(draft, ARTEFACTS if model_source is None else (*ARTEFACTS, MODEL))
                os.rename(draft, target)
            except OSError:
                if not (target / CONFIG).exists():
                    raise
                # A process that lost its lock, say on NFS, was overtaken: the same fit, the same numbers.
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        self.drop_checkpoint(config)
        return _read_in_place(target)

    @contextmanager
    def lock(self, config: FitConfig, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Let one process at a time train this fit; wait for another that does, tidy up after one that was killed."""
        with hold_lock(self._partial(config).with_suffix(".lock"), on_wait):
            for draft in self._drafts(config):
                shutil.rmtree(draft, ignore_errors=True)
            if self.exists(config):
                self.drop_checkpoint(config)
            yield

    def has_leftovers(self, config: FitConfig) -> bool:
        """True if the training of a finished fit left files behind since it was killed; ``lock`` removes them."""
        return self._partial(config).exists() or any(self._drafts(config))

    def save_checkpoint(self, config: FitConfig, state: dict[str, Any]) -> None:
        """Replace the fit's checkpoint by ``state`` (tensors, numbers, texts, lists and dicts of them)."""
        import torch

        folder, buffer = self._partial(config), io.BytesIO()
        torch.save(state, buffer)
        with _explained(folder):
            content = buffer.getbuffer()
            replace_file(folder / CHECKPOINT, b"".join((sum_of(content).encode(), content)))

    def load_checkpoint(self, config: FitConfig) -> dict[str, Any] | None:
        """The fit's last checkpoint on the CPU, or None if there is none.

        Raises:
            DamagedRunError: it is not what was written.
        """
        path = self._partial(config) / CHECKPOINT
        if not path.exists():
            return None
        content = _read_bytes(path)
        return _parsed(path, lambda: _parse_checkpoint(content))

    def drop_checkpoint(self, config: FitConfig) -> None:
        """Remove the fit's checkpoint."""
        shutil.rmtree(self._partial(config), ignore_errors=True)

    def save_baselines(self, dataset: DatasetFacts, table: pd.DataFrame) -> None:
        """Keep a data set's table of baselines (see ``training.baselines``) with its ``attrs``, in place of another.

        Raises:
            InputError: the disk is full or the file cannot be written.
        """
        path, kept = self._baselines(dataset), table.copy(deep=False)
        kept.attrs = {**table.attrs, TABLE_SUM: _table_sum(table)}
        with _explained(path):
            replace_file(path, kept.to_parquet(None, index=False, compression="zstd"))

    def load_baselines(self, dataset: DatasetFacts) -> pd.DataFrame | None:
        """A data set's table of baselines; None if there is none, or if its file is damaged: it is made in seconds.

        Raises:
            InputError: the file may not be read.
        """
        path = self._baselines(dataset)
        with suppress(DamagedRunError):
            content = _read_bytes(path)
            return _parsed(path, lambda: _parse_summed_table(content))
        return None

    def _baselines(self, dataset: DatasetFacts) -> Path:
        return self.runs_dir / dataset.name / f"baselines-{dataset.fingerprint[:8]}.parquet"

    def _partial(self, config: FitConfig) -> Path:
        return self.runs_dir / config.dataset / f".{config.fit_id}.partial"

    def _drafts(self, config: FitConfig) -> Iterator[Path]:
        return (self.runs_dir / config.dataset).glob(f".{escape(config.fit_id)}.*.draft")


def load_run(path_or_fit_id: Path | str, runs_dir: Path | str | None = None) -> Run:
    """A finished fit, by its folder or by its id.

    Args:
        path_or_fit_id: a run folder wherever it lies, or the id of a fit, such as
            ``cnn-val2-test1-seed0-tuned-e100-1a2b3c4d``.
        runs_dir: where the id is searched; unless given, in ``report/runs``, then in ``report/published``.

    Raises:
        InputError: there is no such fit, or its folder is damaged or of another version.
    """
    folder = user_path(path_or_fit_id)
    if (folder / CONFIG).is_file():
        return read_run(folder.resolve())
    stores = [RunStore(each) for each in ([runs_dir] if runs_dir else [DEFAULT_RUNS_DIR, PUBLISHED_DIR])]
    folders = {path.name: path for store in reversed(stores) for path in store._folders()}
    name = str(path_or_fit_id)
    if name in folders:
        return read_run(folders[name])
    where = " or ".join(str(store.runs_dir) for store in stores)
    nearest = ", ".join(get_close_matches(name, folders, cutoff=0)) or "none: train one with `audioclf suite`"
    raise InputError(f"there is no fit {quote(name)} in {where}; the nearest ids are {nearest}")


def read_run(path: Path) -> Run:
    """Read a run folder's configuration.

    Raises:
        InputError: it was written by an older or a newer version, or is damaged.
    """
    values = _read(path / CONFIG, _parse_json)
    version = values.get("schema_version")
    if isinstance(version, int) and version != SCHEMA_VERSION:
        is_older = version < SCHEMA_VERSION
        age, remedy = ("an older", "train it again") if is_older else ("a newer", "update this one to read it")
        raise InputError(f"{path} was written by {age} audioclf (schema {version}); {remedy}")
    return Run(path, _parsed(path / CONFIG, lambda: FitConfig(**values)))


def _read_in_place(path: Path) -> Run:
    """``read_run`` for a folder of a store, which must be the one that it is named after."""
    run = read_run(path)
    config = run.config
    if path.name != config.fit_id or path.parent.name != config.dataset:
        raise InputError(
            f"{path} holds another fit than its name says (data set {config.dataset!r}, fingerprint "
            f"{config.fingerprint}, seed {config.seed}); move it out of the runs, or back to its own name and place"
        )
    return run


def _read(path: Path, parse: Callable[[bytes], _Value]) -> _Value:
    """What ``parse`` makes of the bytes of a file of a run folder, if they are those that were written.

    Raises:
        DamagedRunError: the file is missing, cannot be read or parsed, or has another checksum.
        InputError: it may not be read.
    """
    content = _read_bytes(path)
    if sum_line(path.name, content) not in _read_bytes(path.with_name(SUMS)):
        raise _damaged(path, f"its bytes are not those that {SUMS} was written for")
    return _parsed(path, lambda: parse(content))


def _parsed(path: Path, parse: Callable[[], _Value]) -> _Value:
    try:
        return parse()
    except MemoryError:
        raise
    except Exception as error:  # pandas, safetensors and torch raise many kinds for what they cannot read
        raise _damaged(path, error) from None


def _parse_json(content: bytes) -> dict[str, Any]:
    values = json.loads(content.decode("utf-8"))
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    return values


def _parse_weights(content: bytes) -> OrderedDict[str, Tensor]:
    from safetensors import torch as safetensors

    weights = OrderedDict(safetensors.load(content))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    made = json.loads(header["__metadata__"]["audioclf"])
    weights._metadata = {"": {"audioclf": made}}  # type: ignore[attr-defined]  # where load_state_dict reads it
    return weights


def _parse_checkpoint(content: bytes) -> dict[str, Any]:
    import torch

    if content[:64] != sum_of(content[64:]).encode():
        raise ValueError("its bytes are not those that were written")
    state: dict[str, Any] = torch.load(io.BytesIO(content[64:]), map_location="cpu", weights_only=True)
    return state


def _table_sum(table: pd.DataFrame) -> str:
    return sum_of(table.to_csv(index=False).encode())


def _parse_summed_table(content: bytes) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(content))
    if table.attrs.pop(TABLE_SUM) != _table_sum(table):
        raise ValueError("its values are not those that were written")
    return table


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedRunError(f"{path} is missing") from None
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give yourself the right to") from None
    except OSError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, reason: object) -> DamagedRunError:
    return DamagedRunError(f"{path} is damaged ({' '.join(str(reason).split())[:300]})")


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
