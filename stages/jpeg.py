"""JPEG: the hot path. One walk over the header, then libjpeg-turbo at the smallest DCT scale that the target allows.

libjpeg repairs damage silently (grey where data ends) and only warns; here its warnings are failures, except the few that
cannot touch a pixel. libjpeg-turbo's integer transforms give the same pixels on every machine.
Markers: ITU-T T.81 annex B; the orientation tag: EXIF 2.3 §4.6.4.
"""

import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from schemas.errors import FailureCode
from stages.preprocess import by_rows

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, any coding
_READABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # baseline, extended, progressive; Huffman or arithmetic
_HARMLESS = ("Unknown Adobe color transform", "unknown JFIF revision", "Invalid SOS parameters")


class Undecodable(ValueError):
    """This image cannot be used; `code` says why, the text says what was found. Turned into a RowFailure by the caller."""

    def __init__(self, code: FailureCode, found: str) -> None:
        super().__init__(found)
        self.code = code


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands before the pixels: size as stored (before orientation), colour components, EXIF orientation."""

    height: int
    width: int
    components: int
    orientation: int


def read_header(data: bytes) -> JpegHeader:
    """Walks the markers up to the start of frame. Raises Undecodable: truncated, corrupt or unsupported."""
    at, end, orientation = 2, len(data), 1
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise Undecodable(FailureCode.CORRUPT, f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if marker in _FRAMES:
            if at + 10 > end:
                break
            return _frame(data, at, marker, orientation)
        if marker in (0xD9, 0xDA):
            raise Undecodable(FailureCode.CORRUPT, "JPEG pixels begin before their size is given")
        if marker == 0xE1 and orientation == 1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    raise Undecodable(FailureCode.TRUNCATED, f"JPEG ends inside its header, after {end} bytes")


def _frame(data: bytes, at: int, marker: int, orientation: int) -> JpegHeader:
    precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
    if marker not in _READABLE_FRAMES or precision != 8 or components not in (1, 3, 4):
        raise Undecodable(
            FailureCode.UNSUPPORTED,
            f"JPEG of {precision} bits, {components} components, frame type 0x{marker:02X}; "
            "only 8-bit grey, colour and CMYK, baseline or progressive, are read",
        )
    if not height or not width:
        raise Undecodable(FailureCode.CORRUPT, f"JPEG header says {width}×{height} pixels")
    return JpegHeader(height, width, components, orientation)


def exif_orientation(tiff: bytes) -> int:
    """Tag 274 of the first directory of an EXIF block (without its `Exif\\0\\0`); 1 when it is absent or damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", tiff, entry)
        if tag == 0x0112:
            value = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, entry + 8)[0]
            return value if 1 <= value <= 8 else 1
    return 1


def decode_rgb(data: bytes, header: JpegHeader, smallest: tuple[int, int]) -> NDArray[np.uint8] | None:
    """H×W×3 as stored, at least `smallest` (height, width) unless the image itself is less; `(0, 0)` means full size.

    Returns None for a layout that TurboJPEG's interface cannot take (odd subsampling), which Pillow can.
    Raises Undecodable: truncated or corrupt.
    """
    colour = "CMYK" if header.components == 4 else "RGB"
    factor = {"min_height": smallest[0], "min_width": smallest[1]} if all(smallest) else {}
    try:
        pixels = simplejpeg.decode_jpeg(data, colour, **factor)
    except ValueError as warning:
        text = str(warning)
        if "subsampling" in text:
            return None
        if not any(harmless in text for harmless in _HARMLESS):
            code = FailureCode.TRUNCATED if "Premature end of JPEG" in text else FailureCode.CORRUPT
            raise Undecodable(code, text) from None
        if b"\xff\xd9" not in data[-4096:]:
            raise Undecodable(FailureCode.TRUNCATED, "JPEG has no end marker") from None
        pixels = simplejpeg.decode_jpeg(data, colour, strict=False, **factor)
    if header.components == 4:
        pixels = _from_inverted_cmyk(pixels)
    return pixels if pixels.shape[0] == header.height else _without_padding(pixels, header, smallest)


def _from_inverted_cmyk(cmyk: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adobe's convention, which every browser and Pillow assume: 255 is no ink, so RGB = CMY·K / 255."""
    return by_rows(lambda rows: (rows[..., :3].astype(np.uint16) * rows[..., 3:] + 127) // 255, cmyk, 3)


def _without_padding(pixels: NDArray[np.uint8], header: JpegHeader, smallest: tuple[int, int]) -> NDArray[np.uint8]:
    """Drops a last row or column that lies mostly outside the picture: DCT scales are eighths, rounded up."""
    height, width = pixels.shape[:2]
    eighths = max(8 * (height - 1) // header.height, 8 * (width - 1) // header.width) + 1
    rows = max((header.height * eighths + 4) // 8, smallest[0], 1)
    columns = max((header.width * eighths + 4) // 8, smallest[1], 1)
    return pixels[:rows, :columns]
