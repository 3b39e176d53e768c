"""Images are opened by decoders that only decode."""

from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

import das3r_ns
from das3r_ns.files.image_file import FORMATS, open_image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "TGA"])
def test_what_cameras_and_editors_write_is_opened_whatever_it_is_called(tmp_path, kind):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.dat", kind)
    with open_image(tmp_path / "a.dat") as image:
        assert (image.format, image.size) == (kind, (8, 6))


def test_a_program_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n", encoding="ascii")
    assert Image.open(tmp_path / "a.png").format == "EPS"  # would be run by Ghostscript when it is loaded
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "a.png")
    assert "EPS" not in FORMATS


def test_nothing_else_opens_images():
    root = Path(das3r_ns.__file__).parent
    found = [str(p) for p in root.rglob("*.py") if "Image.open(" in p.read_text(encoding="utf-8")]
    assert [Path(p).name for p in found] == ["image_file.py"]
