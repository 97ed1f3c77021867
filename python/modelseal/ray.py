"""Sealing across a Ray cluster: one task for each file, finished with one manifest or conf.

    import modelseal.ray

    modelseal.ray.seal("s3://plain/llm", "s3://sealed/llm", key="kbs:///models/llm/key", kbs_url="https://kbs.example")

Source and destination lead to the same on all machines: object storage, or a file system that they share. The key is named
by reference, and each worker process has it for itself, once; neither it nor an issuer's key nor any plaintext is ever in
Ray's object store. A worker that is lost has its file sealed again elsewhere, under a fresh file ID.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any, NamedTuple, Unpack

from modelseal import _modelseal
from modelseal._model import Progress, _how
from modelseal._options import Common, Location, SealOptions, opening, resolved_key

__all__ = ["seal"]

# Seconds after which it is looked what is done, and `progress` told.
_TICK = 1.0
# What is sent to the workers: all but what only the license and the conf are about.
_COMMON = Common.__required_keys__ | Common.__optional_keys__
_PATHS = ("init_data", "instance_info", "kbs_ca", "storage_ca")


class _Place(NamedTuple):
    """What a worker needs to take part. Nothing in it is secret."""

    source: str
    destination: str
    key: str
    ticket: str
    options: tuple[tuple[str, str], ...]


def seal(
    source: Location,
    destination: Location,
    key: str | None = None,
    *,
    num_cpus: float = 1,
    max_retries: int = 3,
    progress: Progress | None = None,
    **options: Unpack[SealOptions],
) -> dict[str, int]:
    """Seals the directory `source` into `destination`, as `modelseal.seal` does, with the workers of a Ray cluster.

    Uses the cluster that this process is connected to, else connects to one as `ray.init()` does. `num_cpus` is what one
    file takes, and the number of threads that encrypt it unless `threads` says otherwise; `max_retries` is how often a file
    is given to another worker after one was lost. What was interrupted goes on with `resume=True`: files that are complete
    and still match their source are checked, by the workers too, and stay. `progress` is told after whole files.

    Only this process needs the issuer's key and the configuration of the license. Variables of the environment count where
    they are set: those of the workers for how keys are had and storage is reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("modelseal.ray needs Ray; install modelseal[ray]") from error

    if progress is not None and not callable(progress):
        raise TypeError("progress cannot be called")
    reference = _reference(key)
    given: dict[str, Any] = {**options}
    given.update({name: os.path.abspath(given[name]) for name in _PATHS if given.get(name) is not None})
    source, destination = _place(source), _place(destination)
    how, config = _how(given)  # type: ignore[arg-type]
    common = {"threads": max(1, int(num_cpus))} | {name: given[name] for name in given.keys() & _COMMON}
    if not ray.is_initialized():
        ray.init()
    task = ray.remote(_seal_file).options(
        num_cpus=num_cpus, max_retries=max_retries, scheduling_strategy="SPREAD", name="modelseal.ray.seal"
    )
    shared = _modelseal.SharedSeal.begin(source, destination, reference, how, config)
    try:
        # Sent once, not with each task.
        place = ray.put(_Place(source, destination, reference, shared.ticket, tuple(opening(common))))
        tasks = shared.tasks()
        done, total = 0, sum(length for length, _ in tasks)
        pending = {task.remote(place, text): (length, text) for length, text in tasks}
        try:
            while pending:
                ended, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_TICK)
                for answer in ended:
                    length, text = pending.pop(answer)
                    if shared.take(_answer(answer)):
                        done += length
                    else:
                        pending[task.remote(place, text)] = length, text
                if progress is not None:
                    progress(done, total)
        except BaseException:
            _cancel(list(pending))
            raise
        return dict(shared.finish())
    finally:
        shared.close()


def _seal_file(place: _Place, task: str) -> str:
    """Seals a file, in a worker."""
    return _member(place).seal(task, None)


@functools.lru_cache(maxsize=1)
def _member(place: _Place) -> _modelseal.SealMember:
    """This process as one that takes part: what was unlocked once serves for all of its files."""
    return _modelseal.SealMember.join(
        place.source, place.destination, place.key, place.ticket, list(place.options)
    )


def _answer(answer: Any) -> str:
    """What a worker has answered; what it has raised, as it was raised there."""
    import ray

    try:
        record: str = ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, _modelseal.ModelsealError | OSError | ValueError):
            raise error.cause from error
        raise
    return record


def _cancel(pending: list[Any]) -> None:
    """Calls off what is not done yet, and waits until nobody writes any more."""
    import ray

    for answer in pending:
        ray.cancel(answer)
    if pending:
        ray.wait(pending, num_returns=len(pending), timeout=None)


def _reference(key: str | None) -> str:
    given = resolved_key(key)
    if not isinstance(given, str):
        raise TypeError(
            "the workers have the key by reference, such as file:PATH or kbs:///REPOSITORY/TYPE/TAG; a key itself is sent "
            "nowhere"
        )
    if re.match(r"((hex|base64|masterkey):)*prompt:", given):
        raise ValueError("nobody can be asked for a key on the terminals of workers; name it by another reference")
    # The workers may have another directory.
    path = re.match(r"((?:(?:hex|base64|masterkey):)*file:)(.+)", given, re.DOTALL)
    return path[1] + os.path.abspath(path[2]) if path else given


def _place(location: Location) -> str:
    place = os.fspath(location)
    return place if "://" in place else os.path.abspath(place)
