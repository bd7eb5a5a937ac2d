"""PNG files byte by byte, with what Pillow does not write: colors of 16 bits, and any chunk."""

import struct
import zlib

import numpy as np

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, color: int = GREY, before: bytes = b"", after: bytes = b"") -> bytes:
    """A file of (H, W, C) values of 8 or 16 bits; ``before`` and ``after`` are chunks around its pixels."""
    values = np.atleast_3d(values)
    height, width = values.shape[:2]
    bits = 8 * values.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(rows)), after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, order: str = "<", separate: bool = False) -> bytes:
    """An uncompressed RGB file of (H, W, 3) values of 16 bits in either byte order, or in separate planes."""
    height, width, bands = values.shape
    planes = values.transpose(2, 0, 1) if separate else values
    pixels = planes.astype(f"{order}u2").tobytes()
    strips = bands if separate else 1
    start = 8 + 2 + 12 * 10 + 4
    first = start + 8
    begin = first + (8 * strips if separate else 0)
    size = len(pixels) // strips
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, bands, start),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, strips, first if separate else begin),
        (277, 3, 1, bands),
        (278, 3, 1, height),
        (279, 4, strips, first + 4 * strips if separate else size),
        (284, 3, 1, 2 if separate else 1),
    ]
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        out += struct.pack(f"{order}HHI", tag, kind, count)
        out += struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
    out += struct.pack(f"{order}I", 0) + struct.pack(f"{order}4H", 16, 16, 16, 0)
    if separate:
        places = [begin + size * plane for plane in range(strips)]
        out += struct.pack(f"{order}{strips}I", *places) + struct.pack(f"{order}{strips}I", *[size] * strips)
    return out + pixels
