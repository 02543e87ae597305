"""Small images and tables to prepare, right ones and wrong ones, as bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def _image(kind: str, mode: str, size: tuple[int, int] = (4, 4), **how: object) -> bytes:
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    if mode in ("1", "LA", "I;16", "F"):
        image = image.convert("L")
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **how)
    return file.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _image("JPEG", "RGB", (5, 3), exif=exif)


def _claims(width: int, height: int) -> bytes:
    """A PNG of 4 x 4 pixels whose header claims another size, and the checksum of that."""
    png = _image("PNG", "L")
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _frames() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("L", (4, 4), i) for i in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


IMAGES = {
    **{f"png {mode}": _image("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "16 bits": _image("PNG", "I;16"),
    **{f"jpeg {mode}": _image("JPEG", mode) for mode in ("L", "RGB", "CMYK")},
    **{kind: _image(kind, "RGB") for kind in ("WEBP", "BMP", "PPM", "TIFF")},
    "floats": _image("TIFF", "F"),
    "one pixel": _image("PNG", "L", (1, 1)),
    "another size": _image("PNG", "RGB", (7, 2)),
    "turned": _turned(),
    "frames": _frames(),
    "no pixels": _claims(0, 0),
    "huge": _claims(2**31 - 1, 2**31 - 1),
    "large": _claims(20_000, 20_000),
    "no image": b"\x00" * 64,
    "text": b"hello\n",
    "empty": b"",
}


def _table(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


PIXELS = RNG.integers(0, 256, (12, 4, 3, 1), dtype=np.uint8)
LABELS = np.arange(12) % 3
TABLES = {
    "labels": _table(images=PIXELS, labels=LABELS),
    "two parts": _table(x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:3], y_test=LABELS[:3]),
    "compressed": (lambda f: (np.savez_compressed(f, images=PIXELS), f.getvalue())[1])(
        io.BytesIO()
    ),
    "no labels": _table(images=PIXELS[..., 0]),
    "a part without labels": _table(x_train=PIXELS, y_train=LABELS, x_test=PIXELS),
    "another shape": _table(x_train=PIXELS, x_test=PIXELS[:, :2]),
    "floats": _table(images=PIXELS / 255),
    "float labels": _table(images=PIXELS, labels=LABELS / 2),
    "gaps": _table(images=PIXELS, labels=LABELS * 2),
    "negative": _table(images=PIXELS, labels=LABELS - 1),
    "new classes": _table(x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS + 1),
    "too few labels": _table(images=PIXELS, labels=LABELS[:5]),
    "columns": _table(images=PIXELS, labels=LABELS[:, None]),
    "objects": _table(images=np.array([None, {}], dtype=object)),
    "texts": _table(images=PIXELS, labels=LABELS.astype(str)),
    "four channels": _table(images=np.repeat(PIXELS, 4, axis=-1)),
    "a row": _table(images=PIXELS.ravel()),
    "nothing": _table(),
    "no images": _table(images=PIXELS[:0], labels=LABELS[:0]),
    "one": _table(images=PIXELS[:1], labels=LABELS[:1]),
    "other names": _table(x=PIXELS),
}
