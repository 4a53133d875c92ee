"""Encoded bytes → the codec's picture, or the reason there is none. Never raises for a row, whatever the bytes are.

The same bytes give the same pixels in every process. The format is told by its signature, never by a name. The size is read from
the header and held against `max_pixels` before a pixel is decoded, so a decompression bomb costs nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.codec import Preprocess
from schemas.errors import FailureCode, RowFailure
from stages import jpeg, raster
from stages.jpeg import Undecodable
from stages.preprocess import fit, orient, smallest_source

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
"""What a folder of images is filtered by, in any case. Only a hint: formats are told by their signatures."""

_READ = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_KNOWN_BUT_UNREAD = (
    (b"8BPS", "Photoshop PSD"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000 codestream"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DirectDraw DDS"),
    (b"qoif", "QOI"),
    (b"\0\0\1\0", "Windows icon"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"SIMPLE  =", "FITS"),
)
_ISO_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis", b"crx ")


@dataclass(frozen=True, slots=True)
class Decoded:
    """`pixels`: H×W×3 uint8 in the codec's size. `width`, `height`: of the whole picture, oriented, before any resizing."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def prepare_worker() -> None:
    """To be called once where a worker opens: a decoder is one of many processes and must not start threads of its own."""
    cv2.setNumThreads(0)


def decode(data: bytes, *, preprocess: Preprocess, max_pixels: int, max_bytes: int, uri: str) -> Decoded | RowFailure:
    """Decodes, orients, crops and resizes one image.

    `max_pixels` bounds width × height from the header, `max_bytes` the encoded size. `uri` is for messages only.
    """
    try:
        if not data:
            raise Undecodable(FailureCode.ZERO_BYTES, "the file is empty")
        if len(data) > max_bytes:
            raise Undecodable(FailureCode.TOO_LARGE, f"{len(data):,} bytes, more than max_bytes = {max_bytes:,}")
        kind = sniff(data)
        if kind == "JPEG":
            return _jpeg(data, preprocess, max_pixels)
        return _raster(data, kind, preprocess, max_pixels)
    except Undecodable as found:
        return RowFailure(found.code, f"{uri}: {found}")


def sniff(data: bytes) -> str:
    """The format's name by its first bytes. Raises Undecodable: not an image, unsupported, or cut within its signature."""
    for signature, kind in _READ:
        if data.startswith(signature):
            if kind == "TIFF" and data[8:10] == b"CR":
                raise Undecodable(FailureCode.UNSUPPORTED, "camera raw is not read; convert it to JPEG or TIFF")
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if unread := _unread(data):
        raise Undecodable(FailureCode.UNSUPPORTED, f"{unread} is not read; convert it to JPEG, PNG, WebP or TIFF")
    if len(data) >= 2 and any(len(data) < len(s) and s.startswith(data) for s, _ in _READ):
        raise Undecodable(FailureCode.TRUNCATED, f"ends inside an image signature, after {len(data)} bytes")
    raise Undecodable(FailureCode.NOT_AN_IMAGE, f"no image signature; it begins with {data[:8]!r}")


def _unread(data: bytes) -> str | None:
    for signature, name in _KNOWN_BUT_UNREAD:
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp" and data[8:12] in _ISO_BRANDS:
        return "AVIF" if data[8:11] == b"avi" else "HEIC"
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start):
        return "SVG"
    return None


def _jpeg(data: bytes, preprocess: Preprocess, max_pixels: int) -> Decoded:
    header = jpeg.read_header(data)
    turned = header.orientation >= 5
    height, width = (header.width, header.height) if turned else (header.height, header.width)
    _check_pixels(height, width, max_pixels)
    smallest = smallest_source(height, width, preprocess) if preprocess.fast_jpeg else (0, 0)
    stored = jpeg.decode_rgb(data, header, smallest[::-1] if turned else smallest)
    if stored is None:
        return _raster(data, "JPEG", preprocess, max_pixels)
    oriented = stored if header.orientation == 1 else np.ascontiguousarray(orient(stored, header.orientation))
    return Decoded(fit(oriented, preprocess, height=height, width=width), width, height)


def _raster(data: bytes, kind: str, preprocess: Preprocess, max_pixels: int) -> Decoded:
    def check(height: int, width: int) -> None:
        _check_pixels(height, width, max_pixels)

    oriented = np.ascontiguousarray(raster.decode_rgb(data, kind, preprocess.background, check))
    height, width = oriented.shape[:2]
    return Decoded(fit(oriented, preprocess, height=height, width=width), width, height)


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise Undecodable(
            FailureCode.TOO_LARGE,
            f"{width:,}×{height:,} pixels = {width * height:,}, more than max_pixels = {max_pixels:,}",
        )
