"""What Python's reader of zip archives raises on those that somebody else has written: many kinds, of which few are its
own."""

import lzma
import struct
import zipfile
import zlib

UNREADABLE_ZIP = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError,
    RuntimeError,  # encrypted, or packed in a way that is not known
)  # fmt: skip
