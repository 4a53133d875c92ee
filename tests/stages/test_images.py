"""Decoding: every format, mode, depth, orientation and resize policy comes out right."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from imagefiles import chunk, encoded, failure, near, photo, pixels, run
from PIL import Image

from schemas.errors import FailureCode
from stages.images import Decoded


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    """Red, green / blue, white: every orientation and flip of it differs."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = 255
    return image


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["PNG", "BMP", "TIFF", "GIF", "WebP", "JPEG"])
def test_formats_keep_a_picture(fmt: str) -> None:
    image = quadrants(64, 64)
    options = {"lossless": True} if fmt == "WebP" else {"quality": 95, "subsampling": 0} if fmt == "JPEG" else {}
    assert near(pixels(encoded(image, fmt, **options)), image, 3 if fmt == "JPEG" else 0)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_compressions(compression: str) -> None:
    assert near(pixels(encoded(photo(64, 64), "TIFF", compression=compression)), photo(64, 64), 4)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}, {"keep_rgb": True}]
)
def test_jpeg_varieties(options: dict[str, object]) -> None:
    data = encoded(photo(64, 64), "JPEG", quality=95, **options)
    assert near(pixels(data), photo(64, 64), 4)


def test_greyscale_is_equal_in_all_channels() -> None:
    for fmt in ("JPEG", "PNG", "TIFF", "WebP"):
        got = pixels(encoded(Image.fromarray(photo(64, 64)).convert("L"), fmt))
        assert near(got[..., 0], got[..., 2], 2)
    bilevel = Image.fromarray(np.indices((64, 64)).sum(0) % 2 == 0)
    assert set(np.unique(pixels(encoded(bilevel, "PNG")))) == {0, 255}


def test_cmyk_follows_adobes_inverted_convention() -> None:
    """As every browser shows it: what Pillow makes of a CMYK JPEG, and of the picture before it was one."""
    cmyk = encoded(Image.fromarray(photo(64, 64)).convert("CMYK"), "JPEG", quality=95, subsampling=0)
    got = pixels(cmyk)
    assert near(got, np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")), 1)
    assert near(got, photo(64, 64), 6)


def test_ycck_equals_cmyk() -> None:
    ink = np.dstack([photo(64, 64), np.full((64, 64), 230, np.uint8)])
    ycck = simplejpeg.encode_jpeg(np.ascontiguousarray(ink), quality=98, colorspace="CMYK", colorsubsampling="444")
    expected = (ink[..., :3].astype(int) * 230 + 127) // 255
    assert near(pixels(ycck), expected.astype(np.uint8), 4)


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[5, 5].tolist() == [255, 0, 0]
    data = encoded(frames[0], "WebP", save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(data)[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("fmt", ["PNG", "WebP", "TIFF"])
def test_alpha_lies_over_the_background(fmt: str) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, np.array([0, 128, 255, 255])[np.arange(64) // 16]
    got = pixels(
        encoded(rgba, fmt, **({"lossless": True, "exact": True} if fmt == "WebP" else {})), background=(0, 100, 50)
    )
    assert got[5, 5].tolist() == [0, 100, 50]
    assert got[5, 40].tolist() == [200, 0, 0]
    half = [(200 * 128 + 127) // 255, (100 * 127 + 127) // 255, (50 * 127 + 127) // 255]
    assert got[5, 20].tolist() == half


def test_grey_with_alpha() -> None:
    la = np.full((64, 64, 2), 90, np.uint8)
    la[:32, :, 1], la[32:, :, 1] = 0, 255
    got = pixels(encoded(Image.fromarray(la, "LA"), "PNG"), background=(1, 2, 3))
    assert got[0, 0].tolist() == [1, 2, 3] and got[63, 0].tolist() == [90, 90, 90]


@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_palette_with_transparency(fmt: str) -> None:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    image.paste(1, (32, 0, 64, 64))
    assert pixels(encoded(image, fmt))[0, 0].tolist() == [255, 0, 0]
    clear = pixels(encoded(image, fmt, transparency=0), background=(9, 8, 7))
    assert clear[0, 0].tolist() == [9, 8, 7] and clear[0, 63].tolist() == [0, 255, 0]


def test_png_colour_key() -> None:
    image = Image.fromarray(quadrants(64, 64))
    got = pixels(encoded(image, "PNG", transparency=(255, 0, 0)), background=(9, 8, 7))
    assert got[0, 0].tolist() == [9, 8, 7] and got[0, 63].tolist() == [0, 255, 0]


# --- 16 bits -------------------------------------------------------------------------------------------------------


def png16(samples: np.ndarray, colour_type: int, *, extra: bytes = b"") -> bytes:
    """A 16-bit PNG written by hand: Pillow writes no 16-bit colour."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + samples[i].astype(">u2").tobytes() for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff16(
    samples: np.ndarray,
    photometric: int,
    *,
    order: str = "<",
    bits: int = 16,
    orientation: int = 1,
    sample_format: int = 1,
) -> bytes:
    height, width, channels = samples.shape
    body = samples.astype(order + "u2").tobytes()
    tags = [
        (256, [width]), (257, [height]), (258, [bits] * channels), (259, [1]), (262, [photometric]), (273, [0]), (274, [orientation]),
        (277, [channels]), (278, [height]), (279, [len(body)]), (339, [sample_format] * channels),
    ]  # fmt: skip
    at = 8 + 2 + 12 * len(tags) + 4
    entries, spill = b"", b""
    start = at + sum(2 * len(v) for _, v in tags if len(v) > 2)
    for tag, values in tags:
        values = [start] if tag == 273 else values
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(values) > 2:
            packed, spill = struct.pack(order + "I", at + len(spill)), spill + packed
        entries += struct.pack(order + "HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return head + entries + b"\0" * 4 + spill + body


def scaled(samples: np.ndarray) -> np.ndarray:
    return np.round(samples / 257.0).astype(np.uint8)


@pytest.mark.parametrize("colour_type,channels", [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_16_bit_is_scaled_not_cut(colour_type: int, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (64, 64, channels), dtype=np.uint16)
    colour = samples[..., : 3 if channels > 2 else 1]
    if channels in (2, 4):
        samples[..., -1] = 65535
    got = pixels(png16(samples, colour_type))
    assert (got == scaled(colour)).all()


def test_png_16_bit_alpha_and_keys() -> None:
    samples = np.full((64, 64, 4), 30000, np.uint16)
    samples[:32, :, 3], samples[32:, :, 3] = 0, 65535
    got = pixels(png16(samples, 6), background=(9, 8, 7))
    assert got[0, 0].tolist() == [9, 8, 7] and got[63, 0].tolist() == [117] * 3
    grey = np.full((64, 64, 1), 1000, np.uint16)
    grey[32:] = 1001
    got = pixels(png16(grey, 0, extra=chunk(b"tRNS", struct.pack(">H", 1000))), background=(9, 8, 7))
    assert got[0, 0].tolist() == [9, 8, 7] and got[63, 0].tolist() == [4] * 3


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_16_bit_is_scaled_not_cut(order: str, channels: int) -> None:
    samples = np.random.default_rng(2).integers(0, 65536, (64, 64, channels), dtype=np.uint16)
    assert (pixels(tiff16(samples, 2 if channels == 3 else 1, order=order)) == scaled(samples)).all()


def test_tiff_16_bit_white_is_zero_and_orientation() -> None:
    samples = np.random.default_rng(3).integers(0, 65536, (64, 64, 1), dtype=np.uint16)
    assert (pixels(tiff16(samples, 0)) == 255 - scaled(samples)).all()
    colour = np.random.default_rng(3).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    for image, photometric in ((samples, 1), (colour, 2)):
        got = pixels(tiff16(image, photometric, orientation=6))
        assert (got == np.rot90(scaled(image), -1)).all()


def test_signed_and_float_samples_are_unsupported() -> None:
    assert failure(encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")) is FailureCode.UNSUPPORTED
    assert failure(encoded(Image.fromarray(np.zeros((8, 8), np.int32)), "TIFF")) is FailureCode.UNSUPPORTED
    assert failure(tiff16(np.zeros((8, 8, 3), np.uint16), 2, sample_format=2)) is FailureCode.UNSUPPORTED


# --- orientation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WebP", "TIFF"])
def test_exif_orientation(fmt: str, orientation: int) -> None:
    """Seen as Pillow's own transposition shows it; the size told is that of the turned picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if fmt == "WebP" else {"quality": 98, "subsampling": 0} if fmt == "JPEG" else {}
    data = encoded(quadrants(), fmt, exif=exif.tobytes() if fmt != "TIFF" else exif, **options)
    found = run(data, size=(32, 48), resize="stretch")
    assert isinstance(found, Decoded)
    turns = {2: 0, 3: 1, 4: 4, 5: 5, 6: 3, 7: 6, 8: 2}  # EXIF number → Image.Transpose that undoes it
    image = Image.fromarray(quadrants())
    methods = [
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_270,
    ]
    methods += [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE]
    upright = image.transpose(methods[turns[orientation]]) if orientation > 1 else image
    assert (found.width, found.height) == upright.size
    assert near(found.pixels, np.asarray(upright.resize((48, 32), Image.Resampling.BOX)), 4)


def test_orientation_with_dct_scaling_keeps_enough_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = encoded(photo(300, 900), "JPEG", exif=exif.tobytes(), quality=95)
    found = run(tall, size=(90, 30), resize="stretch")
    assert isinstance(found, Decoded) and (found.width, found.height) == (300, 900)
    expected = cv2.resize(np.rot90(photo(300, 900), -1), (30, 90), interpolation=cv2.INTER_AREA)
    assert near(found.pixels, expected, 3)


def test_damaged_exif_counts_as_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(64, 64), "JPEG", exif=exif.tobytes())
    for at in range(data.index(b"Exif\0\0") + 6, data.index(b"Exif\0\0") + 30):
        assert isinstance(run(data[:at] + b"\xff" + data[at + 1 :]), Decoded)


# --- resize and crop -----------------------------------------------------------------------------------------------


def test_cover_crops_the_middle_or_the_top() -> None:
    image = np.zeros((300, 100, 3), np.uint8)
    image[:100], image[100:200], image[200:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert (pixels(encoded(image, "PNG"), size=50)[25, 25] == (0, 255, 0)).all()
    assert (pixels(encoded(image, "PNG"), size=50, crop="top")[25, 25] == (255, 0, 0)).all()
    wide = encoded(np.rot90(image), "PNG")
    assert (pixels(wide, size=50, crop="top")[25, 25] == (0, 255, 0)).all()


def test_contain_pads_with_the_background() -> None:
    got = pixels(encoded(np.zeros((100, 50, 3), np.uint8), "PNG"), size=64, resize="contain", background=(9, 8, 7))
    assert (got[:, :16] == (9, 8, 7)).all() and (got[:, 48:] == (9, 8, 7)).all() and (got[:, 16:48] == 0).all()


def test_stretch_ignores_the_aspect() -> None:
    got = pixels(encoded(quadrants(40, 200), "PNG"), size=(64, 64), resize="stretch")
    assert near(got, quadrants(64, 64), 1)


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic", "lanczos"])
def test_shrinking_does_not_alias(interpolation: str) -> None:
    """A one-pixel checkerboard, shrunk, is grey: a kernel that skips pixels would leave black or white."""
    board = np.repeat(((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    got = pixels(encoded(board, "PNG"), size=32, interpolation=interpolation)
    assert np.abs(got.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic", "lanczos"])
def test_small_pictures_are_enlarged(interpolation: str) -> None:
    assert pixels(encoded(np.full((3, 5, 3), 77, np.uint8), "PNG"), size=64, interpolation=interpolation).mean() == 77


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["cover", "contain", "stretch"]),
    fmt=st.sampled_from(["JPEG", "PNG"]),
    turn=st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_any_shape_comes_out_in_the_codecs_size(
    height: int, width: int, target: tuple[int, int], resize: str, fmt: str, turn: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(np.full((height, width, 3), 140, np.uint8), fmt, exif=exif.tobytes())
    found = run(data, size=target, resize=resize, background=(140, 140, 140))
    assert isinstance(found, Decoded) and found.pixels.shape == (*target, 3)
    assert (found.height, found.width) == ((width, height) if turn >= 5 else (height, width))
    assert np.abs(found.pixels.astype(int) - 140).max() <= 1


@pytest.mark.parametrize("resize", ["cover", "contain", "stretch"])
@pytest.mark.parametrize("shape", [(256, 256), (200, 600), (601, 203), (97, 1200)])
def test_fast_jpeg_changes_pixels_only_slightly(resize: str, shape: tuple[int, int]) -> None:
    data = encoded(photo(*shape), "JPEG", quality=92)
    fast = pixels(data, size=(64, 48), resize=resize)
    slow = pixels(data, size=(64, 48), resize=resize, fast_jpeg=False)
    assert near(fast, slow, 2.5)
    assert abs(float(fast.std()) - float(slow.std())) < 0.1 * float(slow.std()), "detail lost: decoded below the target"


def test_same_bytes_same_pixels() -> None:
    for data in (encoded(photo(301, 203), "JPEG"), encoded(photo(301, 203), "PNG"), encoded(photo(301, 203), "WebP")):
        cv2.setNumThreads(1)
        one = pixels(data)
        cv2.setNumThreads(4)
        assert (one == pixels(data)).all()
    cv2.setNumThreads(0)
