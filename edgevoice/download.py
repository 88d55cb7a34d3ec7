"""One resumable HTTP download.

The bytes so far stay in a `.part` file with the server's validator beside it, so that the next
attempt, in this process or a later one, asks only for the rest. Owns HTTP; knows no hashes.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from edgevoice import __version__
from edgevoice.errors import ArtifactError, FetchError
from edgevoice.progress import Meter

ATTEMPTS = 4
TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 18
_HTTP_PARTIAL = 206
_HTTP_RANGE_REFUSED = 416
_HTTP_RETRY = (408, 429, 500, 502, 503, 504)


class _Interrupted(Exception):
    """The transfer broke off; another attempt may get the rest."""


def download(url: str, target: Path, size: int | None, meter: Meter, pause_s: float = 1.0) -> None:
    """Fetch ``url`` into ``target``, going on from ``target``'s `.part` file where there is one.

    Args:
        url: http or https address.
        target: The finished file; it appears only when it is whole.
        size: Bytes that are expected; a server that sends more is cut off.
        meter: Shows the progress.
        pause_s: Wait before the second attempt; doubled before each further one.

    Raises:
        FetchError: The server cannot be reached or refuses, or the transfer broke off
            :data:`ATTEMPTS` times. What did arrive is kept for the next call.
        ArtifactError: There is more of it than ``size``.
    """
    part = target.with_name(target.name + ".part")
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            _transfer(url, part, size, meter)
        except _Interrupted as error:
            reason = str(error)
            continue
        part.replace(target)
        _validator_of(part).unlink(missing_ok=True)
        return
    kept = part.stat().st_size if part.exists() else 0
    raise FetchError(f"{reason}, {ATTEMPTS} times; {kept} bytes are kept for the next attempt")


def _transfer(url: str, part: Path, size: int | None, meter: Meter) -> None:
    have = part.stat().st_size if part.exists() else 0
    validator = _validator_of(part)
    headers = {"User-Agent": f"edgevoice/{__version__}", "Accept-Encoding": "identity"}
    if have and validator.exists():
        # If-Range: a file that changed since comes whole, instead of its tail after our head.
        headers |= {"Range": f"bytes={have}-", "If-Range": validator.read_text(encoding="ascii")}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S
        ) as response:
            resumed = response.status == _HTTP_PARTIAL and _range_start(response) == have
            if not resumed:
                have = 0
            seen = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            if seen and not seen.startswith("W/") and seen.isascii():
                validator.write_text(seen, encoding="ascii")
            else:
                validator.unlink(missing_ok=True)
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isdigit() else None
            if size is not None and total is not None and total > size:
                raise ArtifactError(f"{url} offers {total} bytes, {size} expected")
            _receive(response, part, have, total=total, size=size, meter=meter)
    except urllib.error.HTTPError as error:
        if error.code == _HTTP_RANGE_REFUSED:
            part.unlink(missing_ok=True)
            raise _Interrupted("the server refused to resume") from error
        if error.code in _HTTP_RETRY:
            raise _Interrupted(f"HTTP {error.code} {error.reason}") from error
        raise FetchError(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"cannot be reached: {error.reason}") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Interrupted(f"the transfer broke off ({error or type(error).__name__})") from error


def _receive(
    response: http.client.HTTPResponse,
    part: Path,
    have: int,
    *,
    total: int | None,
    size: int | None,
    meter: Meter,
) -> None:
    name = part.name.removesuffix(".part")
    with part.open("r+b" if have else "wb") as out, meter(name, total or size, have) as advance:
        out.seek(have)
        while chunk := response.read1(_CHUNK_BYTES):
            have += len(chunk)
            if size is not None and have > size:
                out.truncate(0)
                raise ArtifactError(f"{part.stem}: more than the {size} expected bytes came")
            out.write(chunk)
            advance(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if total is not None and have < total:
        raise _Interrupted(f"the transfer broke off at {have} of {total} bytes")


def _range_start(response: http.client.HTTPResponse) -> int:
    # Content-Range: bytes 100-199/200
    unit, _, span = str(response.headers.get("Content-Range", "")).partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _validator_of(part: Path) -> Path:
    return part.with_name(part.name + ".validator")
