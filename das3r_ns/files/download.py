"""Fetch a large file over HTTP so that nothing is lost when the connection is, and nothing wrong is ever left behind.

Bytes go to `NAME.part` beside the destination. A cut connection goes on where it stopped (HTTP Range), in this run
or a later one; a server that ignores Range, or whose file has changed meanwhile (If-Range), starts it over. Only a
file of the right length and, where one is known, the right checksum gets its name.
"""

import hashlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from das3r_ns.files.locks import LockedError, only_holder

CHUNK_BYTES = 1 << 20
USER_AGENT = "das3r-ns"


class DownloadError(RuntimeError):
    """A file that cannot be had. The message says why and what to do."""


class _TryAgainError(Exception):
    """This attempt failed; another may not."""


@dataclass(frozen=True)
class Patience:
    """How long a server is given."""

    attempts: int = 6
    """Attempts in a row that bring no single byte before giving up."""
    first_wait_s: float = 2.0
    """Pause after the first failed attempt; doubled after each further one, up to a minute."""
    timeout_s: float = 60.0
    """Silence on an open connection that counts as a failed attempt."""


def fetch(
    url: str,
    path: Path,
    sha256: str | None = None,
    patience: Patience | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Path:
    """Fetch `url` to `path`; what is there whole already is not fetched again.

    Args:
        sha256: checksum in hex, or its first digits where the publisher tells no more. When None, one that the server
            announces is used (the Hugging Face hub does).
        progress: called with the bytes that are there and those there will be (None where the server does not say).

    Raises:
        DownloadError: the server does not have the file, stays silent or broken, another process is fetching the
            same file, or the checksum is wrong (the file is then deleted).
    """
    if path.exists():
        if sha256 is None or sha256_of(path).startswith(sha256.lower()):
            return path
        raise DownloadError(f"{path} is there but its checksum is not {sha256}. Move it away and run again.")
    patience = patience or Patience()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with ExitStack() as held:
        try:
            held.enter_context(only_holder(part.with_name(f".{part.name}.lock"), wait=False))
        except LockedError as error:
            raise DownloadError(f"another process is fetching {path.name} into {path.parent} right now.") from error
        with part.open("ab") as file:
            announced = _fetch_all(url, file, part, patience, progress)
        _check(part, sha256 or announced, url)
        os.replace(part, path)
        _notes(part).unlink(missing_ok=True)
    return path


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch_all(
    url: str, file: BinaryIO, part: Path, patience: Patience, progress: Callable[[int, int | None], None]
) -> str | None:
    """Fill `file` to its end; returns the checksum the server announced, if any."""
    failures, wait = 0, patience.first_wait_s
    while True:
        before = file.tell()
        try:
            return _attempt(url, file, part, patience.timeout_s, progress)
        except (_TryAgainError, HTTPException, ConnectionError, TimeoutError, urllib.error.URLError) as error:
            file.flush()
            if file.tell() > before:
                failures, wait = 0, patience.first_wait_s
            failures += 1
            if failures >= patience.attempts:
                raise DownloadError(
                    f"{url} failed {failures} times in a row ({error}). {file.tell()} bytes are kept in {part}; "
                    "run the same command again to go on from there."
                ) from error
            time.sleep(wait)
            wait = min(2 * wait, 60.0)


def _attempt(
    url: str, file: BinaryIO, part: Path, timeout_s: float, progress: Callable[[int, int | None], None]
) -> str | None:
    have = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    validator = _read_validator(part, url)
    if have:
        request.add_header("Range", f"bytes={have}-")
        if validator:
            request.add_header("If-Range", validator)
    announcements = _Announcements()
    try:
        response = urllib.request.build_opener(announcements).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return _beyond_the_end(error, file, have, announcements)
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _TryAgainError(f"the server answers {error.code} {error.reason}") from error
        raise DownloadError(f"{url} answers {error.code} {error.reason}.") from error
    with response:
        total = _position(response, file, have)
        _write_validator(part, url, response.headers.get("ETag") or response.headers.get("Last-Modified"))
        done = file.tell()
        progress(done, total)
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
        file.flush()
    if total is not None and done != total:
        raise _TryAgainError(f"the connection ended after {done} of {total} bytes")
    return announcements.sha256 or _sha256_in(response.headers.get("X-Linked-ETag"))


def _position(response, file: BinaryIO, have: int) -> int | None:
    """Put `file` where the body of this response belongs; returns the length of the whole file if it is said."""
    if response.status == 206:
        said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if said and int(said[1]) == have:
            return None if said[3] == "*" else int(said[3])
        file.truncate(0)  # a piece that does not fit: take the whole
        raise _TryAgainError(f"the server sent {response.headers.get('Content-Range')!r} where byte {have} was asked")
    file.truncate(0)  # the whole file, from its beginning: Range was ignored, or the file has changed
    file.seek(0)
    length = response.headers.get("Content-Length")
    return int(length) if length is not None else None


def _beyond_the_end(
    error: urllib.error.HTTPError, file: BinaryIO, have: int, announcements: "_Announcements"
) -> str | None:
    """The server has no bytes after those that are here: either all are here, or these are of another file."""
    if error.headers.get("Content-Range", "") == f"bytes */{have}":
        return announcements.sha256
    file.truncate(0)
    raise _TryAgainError("what was kept of an earlier attempt is longer than the file") from error


class _Announcements(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the checksum that the Hugging Face hub gives with the first answer."""

    sha256: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.sha256 = self.sha256 or _sha256_in(headers.get("X-Linked-ETag"))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _sha256_in(etag: str | None) -> str | None:
    bare = (etag or "").strip().strip('"').lower()
    return bare if re.fullmatch(r"[0-9a-f]{64}", bare) else None


def _check(part: Path, sha256: str | None, url: str) -> None:
    if sha256 is None:
        return
    found = sha256_of(part)
    if not found.startswith(sha256.lower()):
        size = part.stat().st_size
        part.unlink()
        _notes(part).unlink(missing_ok=True)
        raise DownloadError(
            f"{url} has checksum {found} where {sha256.lower()} is expected; the {size} bytes were deleted. Run the "
            "same command again; if it stays so, the publisher has changed the file."
        )


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_validator(part: Path, url: str) -> str | None:
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A weak validator (W/...) promises the same meaning, not the same bytes.
    return notes["validator"] if notes.get("url") == url and not str(notes["validator"]).startswith("W/") else None


def _write_validator(part: Path, url: str, validator: str | None) -> None:
    if validator:
        _notes(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
