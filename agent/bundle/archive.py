"""The archive: a tar that any tar reads, the same bytes for the same bundle, and never in the place of another file."""

import contextlib
import gzip
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from agent.bundle.piece import Piece
from agent.errors import KatanodeError
from agent.reasons import Reason

ZSTANDARD = ".tar.zst"
_FROM_A_POD = "In a pod write to standard output: kubectl -n katanode exec POD -- katanode bundle --output - > FILE."


def packed(folder: str, files: Sequence[Piece], at: float, *, zstandard: bool = False) -> bytes:
    """The archive's bytes.

    Args:
        folder: the one folder in it.
        files: what is in the folder, in this order.
        at: the time of all of them, seconds since 1970.
        zstandard: compressed by zstd instead of gzip.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for piece in files:
            data = piece.text.encode()
            entry = tarfile.TarInfo(f"{folder}/{piece.name}")
            entry.size, entry.mtime, entry.mode = len(data), int(at), 0o600
            tar.addfile(entry, io.BytesIO(data))
    if zstandard:
        import zstandard as zstd  # noqa: PLC0415 - gzip is what nearly everybody takes

        return zstd.ZstdCompressor().compress(buffer.getvalue())
    return gzip.compress(buffer.getvalue(), mtime=int(at))


def refuse(path: Path) -> None:
    """Sees before the work that the archive can be written.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    if os.path.lexists(path):
        raise _there(path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _failed(path, f"{path.parent.absolute()} is no folder that can be written to")


def write(path: Path, data: bytes) -> None:
    """Writes a new file that its owner alone may read.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`; what was there before still is, and nothing half-written is left.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise _there(path) from error
    except OSError as error:
        raise _failed(path, error.strerror or str(error)) from error
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError):
            raise _failed(path, error.strerror or str(error)) from error
        raise


def _there(path: Path) -> KatanodeError:
    return KatanodeError(
        Reason.FILE_WRITE_FAILED,
        f"{path} is there already, and nothing is overwritten",
        remedy="Name another file with --output.",
    )


def _failed(path: Path, why: str) -> KatanodeError:
    remedy = f"Name another file with --output. {_FROM_A_POD}"
    return KatanodeError(Reason.FILE_WRITE_FAILED, f"{path} cannot be written", evidence=why, remedy=remedy)
