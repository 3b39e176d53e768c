"""Names of files and folders that are made from other names."""

import hashlib
import os

MAX_NAME_BYTES = 255
"""Of one name on usual file systems."""


def short_name(name: str, max_bytes: int) -> str:
    """`name`, or if it takes more than `max_bytes`, its beginning and a digest of the whole of it: different long names
    stay different."""
    whole = os.fsencode(name)
    if len(whole) <= max_bytes:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:8]
    # Characters of several bytes are not cut apart.
    beginning = whole[: max_bytes - len(digest) - 1].decode("utf-8", errors="ignore").rstrip(" .")
    return f"{beginning}-{digest}"
