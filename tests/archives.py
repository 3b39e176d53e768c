"""Archives made in memory, for tests of what reads them."""

import io
import tarfile
import zipfile


def zip_of(files: dict[str, bytes]) -> bytes:
    """A ZIP archive by name of its members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tgz_of(files: dict[str, bytes]) -> bytes:
    """A compressed TAR archive by name of its members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
