"""Where a release's archives come from: a file, a folder, or https with resumption."""

import contextlib
import errno
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from agent.errors import KatanodeError
from agent.host import files
from agent.host.root import HostRoot
from agent.reasons import Reason
from agent.settings import Kata

DOWNLOADS = "/opt/katanode/downloads"
"""Where parts of archives are kept until they are whole, so that a broken download goes on."""

_CHUNK = 1 << 20
_STALL = 30.0
"""Seconds without a byte after which a connection counts as broken."""
_TRIES = 6
"""Connections in a row that brought the download no further."""
_PROGRESS = 1 << 20
"""Bytes by which a download must have grown for the tries to count anew."""
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

Tell = Callable[[int, int | None], None]
"""Told of bytes done, and of bytes in all where they are known."""


def open_archive(root: HostRoot, kata: Kata, name: str, tell: Tell) -> tuple[BinaryIO, int]:
    """Opens an archive, fetching it first where it comes over https.

    Args:
        root: the host's root.
        kata: the settings: source, version and CA file.
        name: the archive's file name.
        tell: told of a download.

    Returns:
        The open archive and its size in bytes.

    Raises:
        KatanodeError: `RELEASE_UNREACHABLE`, `RELEASE_DISK_FULL`, `FILE_WRITE_FAILED`.
    """
    source = kata.source.replace("{version}", kata.version)
    if source.startswith("https://"):
        path = _fetch(root, f"{source.rstrip('/')}/{name}", name, kata.ca_file, tell)
    else:
        path = root(source)
        if path.is_dir():
            path = root(f"{source.rstrip('/')}/{name}")
        elif path.name != name and path.exists():
            raise KatanodeError(
                Reason.RELEASE_UNREACHABLE,
                f"kata.source names {source}, but {name} is wanted",
                evidence=f"{source} is no folder",
                remedy="Set kata.source to the folder that holds the archives of the release.",
            )
    try:
        archive = path.open("rb", buffering=0)
        return archive, os.fstat(archive.fileno()).st_size
    except OSError as error:
        raise KatanodeError(
            Reason.RELEASE_UNREACHABLE, f"{path} cannot be opened", evidence=str(error.strerror)
        ) from error


def discard(root: HostRoot, name: str) -> None:
    """Removes a downloaded archive, whole or in part."""
    for path in (f"{DOWNLOADS}/{name}", f"{DOWNLOADS}/{name}.part", f"{DOWNLOADS}/{name}.part.json"):
        files.remove(root(path))
    files.remove_empty(root(DOWNLOADS))


def _fetch(root: HostRoot, url: str, name: str, ca_file: str, tell: Tell) -> Path:
    """Downloads to a part file, which a later try or run goes on with, and renames it when it is whole."""
    files.make_folder(root(DOWNLOADS))
    whole, part = root(f"{DOWNLOADS}/{name}"), root(f"{DOWNLOADS}/{name}.part")
    if whole.exists():
        return whole
    note = root(f"{DOWNLOADS}/{name}.part.json")
    opener = _opener(root, ca_file)
    last, best, attempt = "", 0, 0
    while attempt < _TRIES:
        if attempt:
            time.sleep(min(2.0**attempt / 4, 10.0))
        try:
            done, last = _go_on(opener, url, part, note, tell), "the connection ended early"
        except (OSError, http.client.HTTPException) as error:
            done = False
            last, again = _judge(error, part)
            if not again:
                break
        if done:
            with _disk(part):
                part.rename(whole)
            files.remove(note)
            return whole
        # Measured by what is kept: a server that cannot resume brings the same first bytes again and again.
        have = _size(part)
        attempt = 0 if have >= best + _PROGRESS else attempt + 1
        best = max(best, have)
    proxies = ", ".join(sorted(urllib.request.getproxies())) or "none"
    raise KatanodeError(
        Reason.RELEASE_UNREACHABLE,
        f"{url} cannot be fetched",
        evidence=f"{last}\nproxies in the environment: {proxies}",
    )


def _judge(error: OSError | http.client.HTTPException, part: Path) -> tuple[str, bool]:
    """What a failed connection amounts to for people, and whether another may do better."""
    match error:
        case urllib.error.HTTPError():
            if error.code == 416:  # the part does not fit the file any more
                files.remove(part)
            return f"HTTP {error.code} {error.reason}", error.code in {416, *_AGAIN}
        case urllib.error.URLError():
            final = isinstance(error.reason, ssl.SSLCertVerificationError) or "not https" in str(error.reason)
            return str(error.reason), not final
    return f"{type(error).__name__}: {error}", True


def _go_on(opener: Any, url: str, part: Path, note: Path, tell: Tell) -> bool:
    """One connection; True when the part file is whole afterwards.

    Raises:
        OSError, http.client.HTTPException: the connection failed; what came is kept.
        KatanodeError: `RELEASE_DISK_FULL`, `FILE_WRITE_FAILED`.
    """
    have, known = _size(part), _known(note)
    if have and have == known.get("total"):
        return True  # a run was killed between the last byte and the new name
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310 - https is checked
    if have and known.get("tag"):
        # If-Range: a file that changed meanwhile comes whole instead of as a rest that does not fit (RFC 9110, 13.1.5).
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", str(known["tag"]))
    with opener.open(request, timeout=_STALL) as answer:
        if answer.status != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        with _disk(part):
            out = part.open("ab" if have else "wb")
        with out:
            # Only now that the part is empty or fits: note and part belong together, whenever this is cut off.
            files.write_atomic(note, json.dumps({"tag": _strong(answer.headers.get("ETag")), "total": total}).encode())
            while chunk := answer.read(_CHUNK):
                with _disk(part):
                    out.write(chunk)
                    out.flush()
                have += len(chunk)
                tell(have, total)
    return total is None or have == total


def _strong(tag: str | None) -> str:
    """The entity tag if it stands for the very bytes; a weak one must not be in If-Range (RFC 9110, 13.1.5)."""
    return "" if tag is None or tag.startswith("W/") else tag


def _known(note: Path) -> dict[str, object]:
    """What is known of the file that a part is of: its `tag`, and its size in bytes as `total`."""
    with contextlib.suppress(ValueError):
        known = json.loads(files.read_if_there(note) or b"{}")
        if isinstance(known, dict):
            return known
    return {}


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Tells a failure of this machine's disk from one of the connection: another connection would not help it.

    Raises:
        KatanodeError: `RELEASE_DISK_FULL`, `FILE_WRITE_FAILED`.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = Reason.RELEASE_DISK_FULL if full else Reason.FILE_WRITE_FAILED
        raise KatanodeError(reason, f"{path} cannot be written", evidence=str(error.strerror)) from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(root: HostRoot, ca_file: str) -> urllib.request.OpenerDirector:
    """Opens https through the proxies of the environment (https_proxy, no_proxy), as urllib finds them."""
    try:
        context = ssl.create_default_context(cafile=str(root(ca_file)) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise KatanodeError(
            Reason.RELEASE_UNREACHABLE, f"kata.ca_file {ca_file} cannot be used", evidence=str(error)
        ) from error
    # From 3.13 on Python refuses authorities without a key usage, which private ones in the field have and curl takes.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_file:
        context.load_default_certs()
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _HttpsOnly())
