"""Run folders: the only module that reads or writes them.

``<runs_dir>/<dataset>/<fit id>/`` holds one finished fit. It is written under a temporary name and renamed when
complete, so a folder that exists is whole; a checksum of every file tells whether it still is, and a file that is
something else is not read. What an unfinished fit needs to go on lies in ``.<fit id>.partial/``, tables about a fit
that are not part of it in ``traces/<fit id>-<name>.parquet``, and folders that were found damaged in ``damaged/``.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from glob import escape
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError

from audioclf_lib._support.errors import DamagedRunError, InputError
from audioclf_lib._support.paths import explained, replace_file
from audioclf_lib.config import SCHEMA_VERSION, FitConfig
from audioclf_lib.runs.checksums import SUMS, read_sums, seal, sum_of, unseal, write_sums
from audioclf_lib.runs.locks import hold_lease

if (
    TYPE_CHECKING
):  # imported where weights and checkpoints are read or written: to see what is there, torch is too heavy
    from torch import Tensor

CONFIG, HISTORY, PREDICTIONS, METRICS = "config.json", "history.csv", "predictions.parquet", "metrics.json"
WEIGHTS, ENVIRONMENT, CHECKPOINT = "weights.safetensors", "environment.json", "checkpoint.pt"
ARTEFACTS = (CONFIG, HISTORY, PREDICTIONS, METRICS, WEIGHTS, ENVIRONMENT)

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
        return _read_table(self.path / HISTORY, pd.read_csv)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per window: split, clip_id, fold, window_index, silent, y_true, p_0 ... p_(classes-1)."""
        columns = {"split", "clip_id", "fold", "window_index", "silent", "y_true"}
        columns |= {f"p_{label}" for label in range(len(self.config.class_names))}
        return _read_table(self.path / PREDICTIONS, pd.read_parquet, columns)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Scores per split at window and clip level, and which epoch was chosen by what rule."""
        values = read_json(self.path / METRICS)
        if not isinstance(values.get("scores"), dict):
            raise _damaged(self.path / METRICS, "no scores")
        return values

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, threads, commit, wall time."""
        return read_json(self.path / ENVIRONMENT)

    @property
    def has_weights(self) -> bool:
        return (self.path / WEIGHTS).exists()

    def check(self) -> None:
        """Read all that a report needs.

        Raises:
            DamagedRunError: an artefact is missing or damaged.
        """
        _ = self.history, self.predictions, self.metrics, self.environment

    def verify(self) -> None:
        """Hold every artefact against its checksum; where there are none, read what can be read.

        Raises:
            DamagedRunError: an artefact is missing or damaged.
        """
        names = [name for name in ARTEFACTS if name != WEIGHTS or self.has_weights]
        for name in names:
            _read_artefact(self.path / name)
        if not (self.path / SUMS).exists():
            self.check()
            if self.has_weights:
                self.weights()

    def weights(self) -> dict[str, Tensor]:
        """The chosen epoch's weights and batch-norm statistics.

        Raises:
            InputError: the run was published without its weights.
        """
        if not self.has_weights:
            raise InputError(
                f"{self.path} holds no {WEIGHTS}: published runs keep few; train the fit in another runs_dir"
            )
        from safetensors import torch as safetensors

        try:
            return safetensors.load(_read_artefact(self.path / WEIGHTS))
        except SafetensorError as error:
            raise _damaged(self.path / WEIGHTS, error) from None


class RunStore:
    """The run folders below ``runs_dir``.

    Args:
        runs_dir: created when the first fit is written.
    """

    def __init__(self, runs_dir: Path | str) -> None:
        self.runs_dir = Path(runs_dir)

    def path(self, config: FitConfig) -> Path:
        """Where the fit's run folder is or will be."""
        return self.runs_dir / config.dataset / config.fit_id

    def exists(self, config: FitConfig) -> bool:
        """Whether the fit has been trained.

        Raises:
            InputError: a file stands where its run folder would be.
        """
        path = self.path(config)
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file in the place of a run folder; move it away")
        return path.is_dir()

    def load(self, config: FitConfig) -> Run:
        """The finished fit of ``config``.

        Raises:
            InputError: it has not been trained, or its folder is damaged.
        """
        if not self.exists(config):
            raise InputError(f"fit {config.fit_id} is not in {self.runs_dir}; train it with `audioclf suite`")
        return read_run(self.path(config))

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
        """Whether the fit has been trained and every file of it is as it was written."""
        return self.exists(config) and self.damage(config) is None

    def set_aside(self, config: FitConfig) -> str:
        """Take what is damaged of a fit out of the way, so that it is trained anew; what was done with it, in words."""
        path = self.path(config)
        if not path.exists():
            (self._partial(config) / CHECKPOINT).unlink(missing_ok=True)
            return "it is removed"
        names = chain([path.name], (f"{path.name}-{number}" for number in count(2)))
        aside = next(place for name in names if not (place := path.parent / "damaged" / name).exists())
        with _explained(aside):
            aside.parent.mkdir(exist_ok=True)
            os.rename(path, aside)
        return f"its folder is kept as {aside}"

    def find(self, dataset: str | None = None, **criteria: Any) -> list[Run]:
        """All finished fits whose configuration has these values, ordered by fit id.

        Folders that are no run folders are passed over.
        """
        pattern = f"{dataset or '*'}/*/{CONFIG}"
        runs = [read_run(path.parent) for path in sorted(self.runs_dir.glob(pattern)) if path.parent.name[0] != "."]
        return [run for run in runs if all(getattr(run.config, key) == value for key, value in criteria.items())]

    def newest(self, dataset: str, label: str, limit: int, wanted: Callable[[Run], bool]) -> list[Run]:
        """The last finished fits of an architecture, without a look at all others.

        Args:
            dataset: name of the data set.
            label: of the architecture, as run folders begin: ``cnn``, ``transformer-h2``; ``*`` stands for any text.
            limit: how many at most; folders that are damaged are passed over.
            wanted: tells of a run whether it counts.
        """
        configs = (self.runs_dir / dataset).glob(f"{label}-val*/{CONFIG}")
        times = {path.parent: path.stat().st_mtime for path in configs}
        runs: list[Run] = []
        for path in sorted(times, key=lambda path: (-times[path], path.name)):
            if len(runs) == limit:
                break
            with suppress(InputError):
                run = read_run(path)
                if wanted(run):
                    runs.append(run)
        return runs

    def save(
        self,
        config: FitConfig,
        *,
        history: pd.DataFrame,
        predictions: pd.DataFrame,
        metrics: dict[str, Any],
        weights: dict[str, Tensor],
        environment: dict[str, Any],
    ) -> Run:
        """Write a run folder under a temporary name, then rename it; its checkpoint is no longer needed.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        from safetensors import torch as safetensors

        target = self.path(config)
        with self._drafted(target) as draft:
            write_json(draft / CONFIG, config.model_dump(mode="json"))
            history.to_csv(draft / HISTORY, index=False)
            # Probabilities are all different: a dictionary of them makes the file a third larger.
            repetitive = [name for name in map(str, predictions) if not name.startswith("p_")]
            # By way of memory, also in checkpoints: a full disk is a plain OSError only where Python writes.
            (draft / PREDICTIONS).write_bytes(
                predictions.to_parquet(None, index=False, compression="zstd", use_dictionary=repetitive)
            )
            write_json(draft / METRICS, metrics)
            (draft / WEIGHTS).write_bytes(
                safetensors.save({name: tensor.contiguous() for name, tensor in weights.items()})
            )
            write_json(draft / ENVIRONMENT, environment)
            write_sums(draft, ARTEFACTS)
        self.drop_checkpoint(config)
        return read_run(target)

    def adopt(self, run: Run) -> Run:
        """Copy another store's finished fit as a whole but for its weights; a fit that is here already stays as it is.

        Raises:
            InputError: the run folder is damaged, the disk is full or the folder cannot be written.
        """
        target = self.path(run.config)
        run.check()
        if not self.exists(run.config):
            with self._drafted(target) as draft:
                sums = [SUMS] if (run.path / SUMS).exists() else []
                for name in (CONFIG, HISTORY, PREDICTIONS, METRICS, ENVIRONMENT, *sums):
                    shutil.copyfile(run.path / name, draft / name)
        return read_run(target)

    def adopt_weights(self, run: Run) -> bool:
        """Copy the weights of a fit that is here from another store's folder of the same training.

        Returns:
            Whether they are here now; not if ``run`` has none, or is another training of the same fit.

        Raises:
            InputError: the fit is not here, the disk is full or the folder cannot be written.
        """
        own = self.load(run.config)
        if own.has_weights:
            return True
        if not run.has_weights or run.metrics != own.metrics:
            return False
        content = _read_artefact(run.path / WEIGHTS)
        with _explained(own.path / WEIGHTS):
            replace_file(own.path / WEIGHTS, content)
        return True

    def drop_weights(self, config: FitConfig) -> None:
        """Leave a finished fit without its weights: scores and predictions stay."""
        (self.path(config) / WEIGHTS).unlink(missing_ok=True)

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write a CSV file beside the run folders as a whole; numbers keep their last bit.

        Raises:
            InputError: the disk is full or the file cannot be written.
        """
        path = self.runs_dir / name
        with _explained(path):
            replace_file(path, table.to_csv(index=False, lineterminator="\n").encode())
        return path

    def read_table(self, name: str, columns: Mapping[str, str]) -> pd.DataFrame | None:
        """A CSV file beside the run folders, with the types of its ``columns``; None if there is none.

        Raises:
            InputError: it is damaged.
        """
        path = self.runs_dir / name
        try:
            # Without pandas' list of words for "nothing": a name or a reason may be one of them.
            table = pd.read_csv(path, dtype=dict(columns), keep_default_na=False, na_values=[""])
            return table[list(columns)]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); restore it from git, or remove it") from None

    @contextmanager
    def _drafted(self, target: Path) -> Iterator[Path]:
        """A folder under a temporary name for the block to fill; it becomes ``target`` when the block is through."""
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.draft")
        with _explained(target):
            try:
                draft.mkdir(parents=True)
                yield draft
                os.rename(draft, target)
            except OSError:
                if not (target / CONFIG).exists():
                    raise
                # Who lost the lease, say while the machine slept, was overtaken: the same fit, the same numbers.
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def lock(self, config: FitConfig, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Let one process at a time train this fit; wait for another that does, tidy up after one that was killed."""
        marker = self._partial(config).with_suffix(".lock")
        with ExitStack() as stack:
            with _explained(marker):
                marker.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lease(marker, on_wait))
            for draft in self._drafts(config):
                shutil.rmtree(draft, ignore_errors=True)
            if self.exists(config):
                self.drop_checkpoint(config)
            yield

    def has_leftovers(self, config: FitConfig) -> bool:
        """Whether something is left of the training of a finished fit, since that was killed; ``lock`` removes it."""
        return self._partial(config).exists() or any(self._drafts(config))

    def save_checkpoint(self, config: FitConfig, state: dict[str, Any]) -> None:
        """Replace the fit's checkpoint by ``state`` (tensors, numbers, texts, lists and dicts of them)."""
        import torch

        folder, buffer = self._partial(config), io.BytesIO()
        torch.save(state, buffer)
        with _explained(folder):
            replace_file(folder / CHECKPOINT, seal(buffer.getbuffer()))

    def load_checkpoint(self, config: FitConfig) -> dict[str, Any] | None:
        """The fit's last checkpoint on the CPU, or None if there is none.

        Raises:
            DamagedRunError: it is not what was written.
        """
        import torch

        path = self._partial(config) / CHECKPOINT
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            # One from before there were seals is a bare zip archive.
            content = content if content.startswith(b"PK") else unseal(content)
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for what it cannot read
            raise _damaged(path, error) from None
        return state

    def save_trace(self, config: FitConfig, name: str, table: pd.DataFrame) -> None:
        """Keep a table about a fit that is no artefact of its run folder; one of that name is replaced as a whole."""
        path, buffer = self._trace(config, name), io.BytesIO()
        table.to_parquet(buffer, compression="zstd", write_page_checksum=True)
        with _explained(path):
            replace_file(path, buffer.getbuffer())

    def load_trace(self, config: FitConfig, name: str) -> pd.DataFrame | None:
        """The table of that name about a fit; None if there is none or it is damaged (then it is made anew)."""
        try:
            return pd.read_parquet(self._trace(config, name), page_checksum_verification=True)
        except (OSError, ValueError):  # ArrowInvalid is a ValueError
            return None

    def drop_checkpoint(self, config: FitConfig) -> None:
        shutil.rmtree(self._partial(config), ignore_errors=True)

    def _trace(self, config: FitConfig, name: str) -> Path:
        return self.runs_dir / config.dataset / "traces" / f"{config.fit_id}-{name}.parquet"

    def _partial(self, config: FitConfig) -> Path:
        return self.runs_dir / config.dataset / f".{config.fit_id}.partial"

    def _drafts(self, config: FitConfig) -> Iterator[Path]:
        return (self.runs_dir / config.dataset).glob(f".{escape(config.fit_id)}.*.draft")


def read_run(path: Path) -> Run:
    """Read a run folder's configuration.

    Raises:
        InputError: it was written by a newer version, is damaged, or is not the one that the folder is named after.
    """
    values = read_json(path / CONFIG)
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer audioclf (schema {version}); update this one to read it")
    try:
        config = FitConfig(**values)
    except InputError as error:
        raise _damaged(path / CONFIG, error) from None
    if path.name != config.fit_id or path.parent.name != config.dataset:
        raise InputError(
            f"{path} holds another fit than its name says (data set {config.dataset!r}, fingerprint "
            f"{config.fingerprint}, seed {config.seed}); move it out of the runs, or back to its own name and place"
        )
    return Run(path, config)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DamagedRunError: the file is missing or damaged.
    """
    content = _read_artefact(path)
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(values, dict):
        raise _damaged(path, "no JSON object")
    return values


def _read_table(path: Path, read: Callable[[io.BytesIO], pd.DataFrame], columns: Collection[str] = ()) -> pd.DataFrame:
    content = _read_artefact(path)
    try:
        table = read(io.BytesIO(content))
    except (OSError, ValueError) as error:  # what pandas and pyarrow raise for what they cannot read
        raise _damaged(path, error) from None
    if missing := sorted(set(columns) - set(table.columns)):
        raise _damaged(path, f"no column {missing[0]!r}")
    return table


def _read_artefact(path: Path) -> bytes:
    """The bytes of a file of a run folder, if they are those that were written.

    Raises:
        DamagedRunError: the file is missing, cannot be read, or has another checksum.
        InputError: it may not be read.
    """
    try:
        content = path.read_bytes()
        sums = read_sums(path.parent, ARTEFACTS)
    except FileNotFoundError:
        raise DamagedRunError(f"{path} is missing") from None
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give yourself the right to") from None
    except OSError as error:
        raise _damaged(path, error) from None
    except ValueError as error:
        raise _damaged(path.with_name(SUMS), error) from None
    if sums is not None and sums[path.name] != sum_of(content):
        raise _damaged(path, f"its bytes are not those that {SUMS} was written for")
    return content


def _damaged(path: Path, reason: object) -> DamagedRunError:
    said = " ".join(str(reason).split())[:300]
    return DamagedRunError(f"{path} is damaged ({said})")


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
