"""Share a trained detector on the Hugging Face Hub, and open one from there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ladle.errors import UserError, first_line
from ladle.recipes.card import card_of
from ladle.recipes.console import say
from ladle.recipes.progress import best_weights
from ladle.recipes.report import REPORT
from ladle.recipes.report_runs import RunRecord, entries_of, read_run, students_of

__all__ = ["WEIGHTS", "from_hub", "push"]

WEIGHTS = "model.safetensors"
"""The file of the weights in a repository."""
_REPOSITORY = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")


def push(
    folder: str | Path,
    repository: str,
    baseline: str | Path | None = None,
    student: str | None = None,
    private: bool = False,
    report: bool = True,
) -> str:
    """Upload the best weights of a run, its model card and its report to a repository of the Hugging Face Hub.

    The repository is made if it does not exist. You must be logged in (``hf auth login``). Returns its address.

    The card holds names of classes and the command of the run with its paths. The report also holds images of train and
    val with the names of their files. What is uploaded is printed before.

    Args:
        folder: the folder of a run.
        repository: the name of the repository, such as ``me/birds-rtmdet-s``.
        baseline: the folder of another run, such as the same student without a teacher, whose AP the card shows too.
        student: of two students that were trained together, ``first`` or ``second``.
        private: make the repository private, if it is made.
        report: upload the report, with images of the data.
    """
    _check_name(repository)
    records = [read_run(Path(one)) for one in (baseline, folder) if one is not None]
    record = records[-1]
    name = _student(record, student)
    weights = best_weights(record.job, name)
    if not weights.is_file():
        raise UserError(
            f"{weights}: expected the best weights of the run, found no such file: train it to an evaluation"
        )
    files: dict[str, Path | bytes] = {WEIGHTS: weights, "README.md": _card(records, name, repository).encode()}
    page = record.folder / REPORT
    # Without numbers of these weights, the page may be that of earlier ones.
    if report and record.numbers is not None and page.is_file():
        files[REPORT] = page
    say(f"uploading {', '.join(files)}: {_about(files)}")
    address = _upload(repository, files, private)
    say(f"uploaded  {', '.join(files)} to {address}")
    return address


def from_hub(repository: str, revision: str | None = None) -> str:
    """The path of the weights of a detector that :func:`push` uploaded; they are downloaded if they are not there yet.

    It can be used wherever a file of weights is expected: as ``model``, as ``teacher``, in ``load_detector``.

    Args:
        repository: the name of the repository, such as ``me/birds-rtmdet-s``.
        revision: a branch, a tag or a commit; by default the newest of the main branch.
    """
    _check_name(repository)
    with _hub_errors(repository):
        from huggingface_hub import hf_hub_download

        return str(hf_hub_download(repository, WEIGHTS, revision=revision))


def _about(files: dict[str, Path | bytes]) -> str:
    """What the files tell others about the data and the machine."""
    always, page = "names of classes and the command of the run with its paths", files.get(REPORT)
    if not isinstance(page, Path):
        return always
    images = page.read_bytes().count(b"<img ")
    return f"{always}, and {images} images of the data with names of files, which --report false leaves out"


def _card(records: Sequence[RunRecord], student: str, repository: str) -> str:
    """The card of a student of the last run; the first of two runs is its baseline."""
    entries = entries_of(records)
    shown = [entry for entry in entries if entry.run is records[-1] and entry.student == student]
    return card_of(shown, entries[0] if len(records) > 1 else None, repository)


def _student(record: RunRecord, student: str | None) -> str:
    names = students_of(record.job)
    if student is None and len(names) == 1:
        return names[0]
    if student not in names:
        found = "none" if student is None else repr(student)
        raise UserError(f"{record.folder}: expected --student {' or '.join(names)}, found {found}")
    return student


def _check_name(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository!r}: expected the name of a repository, such as me/birds-rtmdet-s")


def _upload(repository: str, files: dict[str, Path | bytes], private: bool) -> str:
    with _hub_errors(repository):
        from huggingface_hub import CommitOperationAdd, HfApi

        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        commit = hub.create_commit(repository, added, commit_message="Upload a detector trained with Ladle")
        return str(commit.repo_url)


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn a missing package, a missing login, a broken connection and a refusal of the hub into one sentence."""
    try:
        from huggingface_hub.errors import HTTPError  # that of the HTTP client, whichever it is
    except ImportError as error:
        raise UserError("the Hugging Face Hub needs another package: pip install 'ladle[hub]'") from error
    try:
        yield
    except UserError:  # which is a ValueError
        raise
    except (OSError, ValueError, HTTPError) as error:
        raise UserError(f"{repository}: the Hugging Face Hub could not be used: {first_line(error)}") from error
