"""What a derived file was made from: recorded with it, and compared before it is used again.

A checkpoint, a stage's examples (buffer-N.jsonl, steps.jsonl), the figures of eval.json and a
teacher's data set depend on settings, weights, a tokenizer and drawn tasks. Each carries a record
of them; whoever opens it again says what it would be made from now, and `differences` names what
is not the same:

    write_lines(file, rows, made_from)      buffer-0.jsonl, and beside it buffer-0.made_from.json
    read_lines(file, made_from, ...)        the rows, or a UserError that says what differs

Hashes are compared and paths are not, so a folder may be moved. Nothing is ever half-written
(`replace`), and a folder or a file has one writer at a time (`claim`).
"""

import fcntl
import hashlib
import json
import os
from pathlib import Path

from config import UserError
from support import ranks


def digest(*paths: str | Path) -> str:
    """16 hex digits of the SHA-256 of files' contents, in the order given."""
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def replace(path: str | Path, content: str | bytes) -> None:
    """Write a file aside, under a name of this process's own, and put it in its place whole."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


# (device, inode) → the open file descriptor whose lock ends with the process
_claimed: dict[tuple[int, int], int] = {}


def claim(path: str | Path) -> None:
    """Make this process the only writer of a folder or file, which must exist, until it ends.

    Raises UserError where another process is. File systems without locks (some network drives)
    guard nothing.
    """
    descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) in _claimed:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"another process is writing {path}; wait until it ends, or end it, and "
            "give the command again, or name another folder"
        ) from None
    except OSError:
        os.close(descriptor)
        return
    _claimed[status.st_dev, status.st_ino] = descriptor


def differences(then: dict, now: dict, defaults: dict | None = None) -> list[str]:
    """In what two records differ, as "name: then → now".

    `settings` (name → value) are compared leniently, because code changes: one that `then` does
    not have is taken at its default, and one that is gone counts only if it is among `given`, the
    names of those that were not at their defaults. All else is compared as it stands; None and a
    missing entry are the same.
    """
    then = json.loads(json.dumps(then))  # in JSON tuples are lists
    now = json.loads(json.dumps(now))
    before = then.pop("settings", {})
    after = now.pop("settings", {})
    given = then.pop("given", [])
    now.pop("given", None)
    found = []
    for name, value in after.items():
        old = before.get(name, (defaults or {}).get(name))
        if old != value:
            found.append(f"{name}: {old!r} → {value!r}")
    for name, old in before.items():
        if name not in after and name in given:
            found.append(f"{name}: {old!r} → no longer a setting")
    if found:  # other settings draw other tasks: that goes without saying
        then.pop("tasks", None)
        now.pop("tasks", None)
    return found + changes(then, now)


def changes(then: dict, now: dict, inside: str = "") -> list[str]:
    """In what two nested dicts of plain values differ, the names of inner ones joined."""
    found = []
    for name in {**now, **then}:
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += changes(old, new, f"{inside}{name} ")
        elif old != new:
            found.append(f"{inside}{name}: {old!r} → {new!r}")
    return found


def record_of(path: Path) -> Path:
    """Where the record of a file of lines stands."""
    return path.with_suffix(".made_from.json")


def write_lines(path: Path, rows: list[dict], made_from: dict) -> None:
    """Write rows as JSON, one per line, with a record of their origin and their hash. All ranks
    call it, and rank 0 writes; where it cannot, all of them fail.

    The record comes first: killed in between there is a record without rows, which are made again.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    content = dict(sha256=hashlib.sha256(text.encode()).hexdigest(), made_from=made_from)
    with ranks.fail_together():
        if ranks.rank() == 0:
            replace(record_of(path), json.dumps(content, indent=1))
            replace(path, text)


def read_lines(path: Path, made_from: dict, defaults: dict, remedy: str) -> list[dict]:
    """The rows of a file of lines. Raises UserError, which ends with `remedy`, where they are not
    those that were written, or were made from something else than `made_from`.
    """
    data = path.read_bytes()
    record = record_of(path)
    try:
        stored = json.loads(record.read_text())
        sha256 = stored["sha256"]
        then = stored["made_from"]
        found = differences(then, made_from, defaults)
    except OSError:
        raise UserError(
            f"{path} does not say what it was made from ({record.name} is missing); {remedy}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{record} cannot be read ({type(error).__name__}: {error}); {remedy}"
        ) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path} was changed or damaged since it was written; {remedy}")
    if found:
        raise UserError(f"{path} was made from something else ({'; '.join(found)}); {remedy}")
    return [json.loads(line) for line in data.decode().split("\n") if line]
