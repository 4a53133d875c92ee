"""PNG, WebP, GIF, BMP, TIFF, and the JPEGs that TurboJPEG refuses: Pillow for the format, OpenCV for 16-bit samples.

Sizes are checked before pixels are made. Pillow fills what is missing without a word in some formats, so lengths and
checksums are checked here: a picture is whole or it is a failure. Colour profiles are ignored; the numbers are taken as sRGB.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from schemas.errors import FailureCode
from stages.jpeg import Undecodable
from stages.preprocess import by_rows, orient, over_background

# Built directly, not through Image.open: only these formats, never another one that happens to accept the bytes,
# and the pixel limit is the job's own.
_READERS: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
_OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})
_TRANSLUCENT = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 258, 262, 339

# What Pillow's parsers let through when bytes are not what they expect. Each is a bad row, never a bad program.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    cv2.error,
    Image.DecompressionBombError,
)
_UNREADABLE_KIND = ("unknown pixel mode", "unsupported", "not supported", "not available", "unknown data organization")
_EARLY_END = ("truncat", "not enough", "end of file", "unexpected end", "ran out of")


def decode_rgb(
    data: bytes, kind: str, background: tuple[int, int, int], check_size: Callable[[int, int], None]
) -> NDArray[np.uint8]:
    """First frame as oriented H×W×3. `check_size(height, width)` is called before any pixel is decoded and may raise.

    Raises Undecodable: truncated, corrupt or unsupported.
    """
    with warnings.catch_warnings():  # damaged metadata is warned about and does not touch pixels
        warnings.simplefilter("ignore")
        try:
            image = _READERS[kind](io.BytesIO(data))
            check_size(image.height, image.width)
            _check_whole(data, kind, image)
            return _pixels(data, kind, image, background)
        except Undecodable:
            raise
        except DECODER_ERRORS as error:
            raise _classified(data, kind, error) from None


def _pixels(data: bytes, kind: str, image: ImageFile, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    bits = _deep_bits(data, kind, image)
    image.load()  # before anything else: finds damage, and PNG may keep EXIF after the pixels
    if bits:
        pixels = _deep(data, image, bits)
    elif image.mode in _TRANSLUCENT or (image.mode in _OPAQUE and "transparency" in image.info):
        pixels = np.asarray(image.convert("RGBA"))
    elif image.mode in _OPAQUE:
        pixels = np.asarray(image.convert("RGB"))
    else:
        raise Undecodable(
            FailureCode.UNSUPPORTED,
            f"{kind} with samples of mode {image.mode}, which have no defined range; convert it to 8 or 16 bits",
        )
    if pixels.shape[2] == 4:
        pixels = over_background(pixels, background)
    # Pillow and OpenCV turn TIFF themselves; they leave the others as stored.
    return pixels if kind == "TIFF" else orient(pixels, image.getexif().get(_ORIENTATION, 1))


def _deep_bits(data: bytes, kind: str, image: ImageFile) -> int:
    """Bits a sample where they are 9 to 16 and unsigned, else 0."""
    if kind == "PNG":
        return 16 if data[24] == 16 else 0
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        bits, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
        if set(formats) == {1} and len(set(bits)) == 1 and 8 < bits[0] <= 16 and image.mode not in ("CMYK", "LAB"):
            return int(bits[0])
    return 0


def _deep(data: bytes, image: ImageFile, bits: int) -> NDArray[np.uint8]:
    """9 to 16-bit samples scaled to 8 bits (16 bits: value / 257), never clipped or cut. Pillow alone would cut colour."""
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)[..., None]
    else:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.dtype != np.uint16:
            raise Undecodable(FailureCode.UNSUPPORTED, f"{bits}-bit samples in a layout that OpenCV does not read")
        blue_first = decoded if decoded.ndim == 3 else decoded[..., None]
        deep = blue_first[..., [2, 1, 0, 3][: blue_first.shape[2]]] if blue_first.shape[2] >= 3 else blue_first
    top = (1 << bits) - 1
    shallow = by_rows(lambda rows: (rows.astype(np.uint32) * 255 + top // 2) // top, deep, deep.shape[2])
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:
        shallow = 255 - shallow  # white is zero
    if shallow.shape[2] > 1:
        return shallow
    grey = np.repeat(shallow, 3, axis=2)
    key = image.info.get("transparency")
    return np.dstack([grey, np.where(deep == key, 0, 255).astype(np.uint8)]) if isinstance(key, int) else grey


def _check_whole(data: bytes, kind: str, image: ImageFile) -> None:
    """Raises Undecodable(truncated) when the file's own lengths say that bytes are missing; for PNG also checks sums."""
    if kind == "PNG":
        _check_png(data)
    elif kind == "WebP":
        _check_length(data, 8 + int.from_bytes(data[4:8], "little"))
    elif isinstance(image, TiffImageFile):
        for starts, lengths in ((273, 279), (324, 325)):
            pairs = zip(image.tag_v2.get(starts, ()), image.tag_v2.get(lengths, ()), strict=False)
            _check_length(data, max((start + length for start, length in pairs), default=0))


def _check_length(data: bytes, promised: int) -> None:
    if promised > len(data):
        raise Undecodable(FailureCode.TRUNCATED, f"its header promises {promised:,} bytes, it has {len(data):,}")


def _check_png(data: bytes) -> None:
    """Every chunk must be there, and every chunk that pixels depend on must have its checksum (PNG 1.2 §5)."""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        _check_length(data, at + 12 + length)
        # Capital first letter: critical, the picture cannot be made without it. tRNS is the one other that colours it.
        if (name[0] < 0x60 or name == b"tRNS") and zlib.crc32(view[at + 4 : at + 8 + length]) != int.from_bytes(
            view[at + 8 + length : at + 12 + length], "big"
        ):
            raise Undecodable(FailureCode.CORRUPT, f"checksum of PNG chunk {name.decode('latin-1')} at byte {at}")
        if name == b"IEND":
            return
        at += 12 + length
    raise Undecodable(FailureCode.TRUNCATED, f"PNG has no end chunk in its {len(data):,} bytes")


def _classified(data: bytes, kind: str, error: BaseException) -> Undecodable:
    """What a decoder's complaint means: too large, unsupported, truncated, else corrupt."""
    text = f"{kind} decoder: {error or type(error).__name__}"
    low = text.lower()
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return Undecodable(FailureCode.TOO_LARGE, text)
    try:
        if kind == "PNG":
            _check_png(data)
        elif kind == "WebP":
            _check_length(data, 8 + int.from_bytes(data[4:8], "little"))
        elif kind == "TIFF":
            _check_length(data, int.from_bytes(data[4:8], "little" if data[:2] == b"II" else "big") + 2)
    except Undecodable as found:
        return found
    if any(word in low for word in _UNREADABLE_KIND):
        return Undecodable(FailureCode.UNSUPPORTED, text)
    if kind == "GIF" and not data.rstrip(b"\0").endswith(b";"):
        return Undecodable(FailureCode.TRUNCATED, text)
    if isinstance(error, EOFError) or any(word in low for word in _EARLY_END):
        return Undecodable(FailureCode.TRUNCATED, text)
    return Undecodable(FailureCode.CORRUPT, text)
