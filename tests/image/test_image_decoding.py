"""Images of every depth, with transparency, rotated or of several frames become the right RGB values.

The files are written byte by byte where Pillow would write another type.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.io.errors import InputError
from image import decoded, decoding
from image.decoding import EXTENSIONS, MAX_PIXELS, decode, to_square
from tests.image.conftest import read_class_folders

RAMP = np.linspace(0, 65535, 16).reshape(4, 4)  # multiples of 4369 = 17 * 257
LEVELS = np.arange(0, 256, 17).reshape(4, 4)  # the same in 8 bits
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # TIFF's sample formats
BLACK_IS_ZERO, WHITE_IS_ZERO = 1, 0


def png(values: np.ndarray, colour_type: int, *, transparent: int | None = None) -> bytes:
    """A PNG of unsigned 8 or 16 bits, ``values`` [H, W] or [H, W, channels]."""
    rows = values.astype(values.dtype.newbyteorder(">"))
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if transparent is not None:
        chunks.append((b"tRNS", struct.pack(">H", transparent)))
    chunks.append((b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))))
    chunks.append((b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def tiff(
    values: np.ndarray,
    sample_format: int,
    *,
    bits: int | None = None,
    data: bytes | None = None,
    photometric: int = BLACK_IS_ZERO,
    declared: tuple[float, float] | None = None,
    statistics: tuple[int, int] | None = None,
) -> bytes:
    """A little-endian, uncompressed TIFF of one channel: values [H, W]."""
    height, width = values.shape
    data = values.tobytes() if data is None else data
    data += b"\0" * (len(data) % 2)
    bits = bits or 8 * values.itemsize
    entries = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    entries += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    if statistics:
        entries += [(280, 3, statistics[0]), (281, 3, statistics[1])]
    entries.append((339, 3, sample_format))
    directory = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries]
    if declared:
        directory += [
            struct.pack("<HHI", tag, 11, 1) + struct.pack("<f", value)
            for tag, value in zip((340, 341), declared, strict=True)
        ]
    content = struct.pack("<H", len(directory)) + b"".join(directory) + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + content


def portable(magic: str, maximum: int, values: np.ndarray) -> bytes:
    """A PGM or PPM: values [H, W] or [H, W, 3]."""
    kind = ">u2" if maximum > 255 else "u1"
    text = " ".join(map(str, values.astype(int).ravel())).encode()
    data = text if magic in ("P2", "P3") else values.astype(kind).tobytes()
    height, width = values.shape[:2]
    return f"{magic}\n{width} {height}\n{maximum}\n".encode() + data


def read(tmp_path: Path, name: str, content: bytes) -> np.ndarray:
    """The decoded image at its own size: [S, S, 3]."""
    path = tmp_path / name
    path.write_bytes(content)
    with Image.open(path) as image:
        size = image.size[0]
    return decode(path, size)[0]


def saved(tmp_path: Path, name: str, image: Image.Image, **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    return read(tmp_path, name, (tmp_path / name).read_bytes())


RGB = np.repeat(RAMP[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("16.png", png(RAMP.astype(np.uint16), 0)),
        ("16-rgb.png", png(RGB.astype(np.uint16), 2)),
        ("16.tif", tiff(RAMP.astype(np.uint16), UNSIGNED)),
        ("16-inverted.tif", tiff((65535 - RAMP).astype(np.uint16), UNSIGNED, photometric=WHITE_IS_ZERO)),
        ("16-statistics.tif", tiff(RAMP.astype(np.uint16), UNSIGNED, statistics=(0, 100))),
        ("16-signed.tif", tiff((RAMP - 32768).astype(np.int16), SIGNED, declared=(-32768, 32767))),
        ("12-in-16.tif", tiff((RAMP // 16).astype(np.uint16), UNSIGNED, declared=(0, 4095))),
        ("8-signed.tif", tiff((RAMP // 257 - 128).astype(np.int8), SIGNED, declared=(-128, 127))),
        ("32.tif", tiff((RAMP * 65537).astype(np.uint32), UNSIGNED, declared=(0, 2.0**32))),
        ("32-signed.tif", tiff((RAMP - 99).astype(np.int32), SIGNED, declared=(-99, 65535 - 99))),
        ("float.tif", tiff((RAMP / 65535).astype(np.float32), FLOAT)),
        ("float-inverted.tif", tiff((1 - RAMP / 65535).astype(np.float32), FLOAT, photometric=WHITE_IS_ZERO)),
        ("float-255.tif", tiff((RAMP / 257).astype(np.float32), FLOAT, declared=(0, 255))),
        ("float.pfm", b"Pf\n4 4\n-1.0\n" + (RAMP / 65535)[::-1].astype("<f4").tobytes()),
        ("16.pgm", portable("P5", 65535, RAMP)),
        ("10.pgm", portable("P5", 1023, RAMP / 65535 * 1023)),
        ("4.pgm", portable("P5", 15, RAMP / 4369)),
        ("4-text.pgm", portable("P2", 15, RAMP / 4369)),
        ("16-text.pgm", portable("P2", 65535, RAMP)),
        ("16.ppm", portable("P6", 65535, RGB)),
        ("4.ppm", portable("P6", 15, RGB / 4369)),
        ("4-text.ppm", portable("P3", 15, RGB / 4369)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_black_to_white_in_any_depth_becomes_0_to_255(tmp_path, name, content):
    """By the range of the type, or by the one that the file declares."""
    image = read(tmp_path, name, content)
    assert image.dtype == np.uint8
    tolerance = 1 if name == "10.pgm" else 0  # 1023 is not a multiple of 15
    for channel in image.transpose(2, 0, 1).astype(int):
        assert np.abs(channel - LEVELS).max() <= tolerance


def test_12_bits_in_a_tiff_are_scaled_by_their_own_range(tmp_path):
    packed = int("".join(f"{value:012b}" for value in (0, 1365, 2730, 4095) * 4), 2).to_bytes(24, "big")
    content = tiff(np.zeros((4, 4), np.uint8), UNSIGNED, bits=12, data=packed)
    assert read(tmp_path, "12.tif", content)[:, :, 0].tolist() == [[0, 85, 170, 255]] * 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            tiff(RAMP.astype(np.int32), UNSIGNED),
            "its values are 0 to 65535; they must be unsigned 8 or 16 bits",
        ),
        (tiff(np.full((4, 4), 2**32 - 1, np.uint32), UNSIGNED), "its values are 4.29497e+09 to 4.29497e+09"),
        (tiff((RAMP - 999).astype(np.int32), SIGNED), "its values are -999 to 64536; they must be unsigned"),
        (tiff((RAMP / 2 - 999).astype(np.int16), SIGNED), "its values are -999 to 31768; they must be"),
        (tiff((RAMP / 600).astype(np.int8), SIGNED), "its values are 0 to 109; they must be unsigned"),
        (tiff((RAMP / 257).astype(np.float32), FLOAT), "its values are 0 to 255; floats must be 0 to 1"),
        (tiff((RAMP / 65535 - 0.5).astype(np.float32), FLOAT), "its values are -0.5 to 0.5; floats must"),
        (tiff(np.full((4, 4), np.nan, np.float32), FLOAT), "some of its values are not finite"),
        (tiff(RAMP.astype(np.uint16), UNSIGNED, declared=(0, 4095)), "are 0 to 65535; it declares 0 to 4095"),
        (tiff(RAMP.astype(np.uint16), UNSIGNED, declared=(7, 7)), "it declares 7 to 7"),
        (tiff(RAMP.astype(np.uint16), UNSIGNED, declared=(0, np.nan)), "it declares 0 to nan"),
    ],
)
def test_values_without_a_known_range_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_class_folders([(tmp_path / "x.tif", 0)], 4)
    assert f"{tmp_path / 'x.tif'} cannot be read as an image (" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("value", [100_000, -1])
def test_32_bits_from_memory_that_are_no_16_bits_are_refused(value):
    image = Image.fromarray(np.full((8, 8), value, np.int32))
    with pytest.raises(ValueError, match="they must be unsigned 8 or 16 bits"):
        to_square(image, 8, {})
    assert to_square(Image.fromarray(np.full((8, 8), 65535, np.int32)), 8, {}).min() == 255


def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path):
    """And half-transparent ones are half white. The hidden colours are black here."""
    levels = LEVELS.astype(np.uint8)
    alpha = np.array([[0, 255, 128, 0]] * 4, np.uint8)
    share = alpha / 255
    on_white = np.rint(levels * share + 255 * (1 - share)).astype(int)
    rgba = Image.fromarray(np.stack([levels, levels, levels, alpha], axis=-1))
    for name in ("rgba.png", "rgba.tif", "rgba.webp"):
        options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
        assert np.abs(saved(tmp_path, name, rgba, **options)[:, :, 0].astype(int) - on_white).max() <= 1, name
    grey = Image.merge("LA", (Image.fromarray(levels), Image.fromarray(alpha)))
    assert np.abs(saved(tmp_path, "la.png", grey)[:, :, 2].astype(int) - on_white).max() <= 1
    wide = np.stack([RAMP, alpha * 257.0], axis=-1).astype(np.uint16)
    assert np.abs(read(tmp_path, "la-16.png", png(wide, 4))[:, :, 1].astype(int) - on_white).max() <= 1


def test_a_transparent_colour_is_white(tmp_path):
    levels = LEVELS.astype(np.uint8)
    expected = np.where(LEVELS == 0, 255, LEVELS)
    for name, content in (
        ("8.png", png(levels, 0, transparent=0)),
        ("16.png", png(RAMP.astype(np.uint16), 0, transparent=0)),
    ):
        np.testing.assert_array_equal(read(tmp_path, name, content)[:, :, 0], expected)
    palette = Image.fromarray(levels).convert("RGB").quantize(16)
    for name in ("palette.png", "palette.gif"):
        transparent = palette.getpixel((0, 0))
        np.testing.assert_array_equal(
            saved(tmp_path, name, palette, transparency=transparent)[:, :, 0], expected
        )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_orientation_in_exif_is_applied_once(tmp_path, kind, orientation):
    """As a viewer shows it: a camera that is held upright stores the picture on its side."""
    upright = np.zeros((32, 32), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16] = 255, 170, 85  # an own grey for each quarter
    # What is stored, so that the operation that EXIF gives the number brings it upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    image = saved(tmp_path, f"x.{kind}", Image.fromarray(stored.copy()), exif=exif, **options)
    for row, column in ((8, 8), (8, 24), (24, 8), (24, 24)):
        assert abs(int(image[row, column, 0]) - int(upright[row, column])) <= 3


@pytest.mark.parametrize(
    "exif", [b"garbage", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3", b"II*\0\x08\0\0\0\xff\xff\x12\1\3\0"]
)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_damaged_exif_costs_neither_the_image_nor_a_warning(tmp_path, recwarn, kind, exif):
    Image.new("RGB", (8, 8), "red").save(tmp_path / f"x.{kind}", exif=b"Exif\0\0" + exif)
    images, _ = read_class_folders([(tmp_path / f"x.{kind}", 0)], 8)
    assert images[0, 0].min() > 240
    assert images[0, 1].max() < 15
    assert not recwarn.list


def test_orientation_of_16_bits_and_of_an_oblong_image(tmp_path):
    """Rotated first, cropped in the centre then."""
    wide = np.zeros((40, 60), np.uint16)
    wide[:, 20:40] = 65535
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(wide).save(tmp_path / "x.png", exif=exif)
    image, _ = decode(tmp_path / "x.png", 20)
    assert image[8:12].mean() > 240
    assert image[:3].mean() < 15


def test_cmyk_grey_and_black_and_white_become_rgb(tmp_path):
    colour = Image.new("RGB", (4, 4), (200, 10, 10))
    for name, mode, expected in (
        ("cmyk.jpg", "CMYK", (200, 10, 10)),
        ("cmyk.tif", "CMYK", (200, 10, 10)),
        ("grey.png", "L", (67, 67, 67)),
    ):
        pixels = saved(tmp_path, name, colour.convert(mode)).reshape(-1, 3).astype(int)
        assert np.abs(pixels - expected).max() <= 3, name
    assert saved(tmp_path, "1.png", Image.new("1", (4, 4), 1)).min() == 255
    inverted = tiff(np.full((4, 4), 255, np.uint8), UNSIGNED, photometric=WHITE_IS_ZERO)
    assert read(tmp_path, "inverted.tif", inverted).max() == 0


@pytest.mark.parametrize("kind", ["gif", "tif", "png", "webp"])
def test_first_of_several_frames_is_used(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(tmp_path / f"x.{kind}", save_all=True, append_images=frames[1:], **options)
    image, has_more_frames = decode(tmp_path / f"x.{kind}", 8)
    assert image.reshape(-1, 3).tolist() == [[255, 0, 0]] * 64
    assert has_more_frames
    frames[0].save(tmp_path / f"one.{kind}", **options)
    assert not decode(tmp_path / f"one.{kind}", 8)[1]


def test_extensions_are_those_of_the_formats():
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"} <= EXTENSIONS
    assert not {".eps", ".ps", ".pdf", ".ico", ".txt"} & EXTENSIONS


def test_images_decoded_by_an_older_rule_are_not_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "x.png").write_bytes(png(RAMP.astype(np.uint16), 0))
    files = [(tmp_path / "x.png", 0)]
    with monkeypatch.context() as older:
        older.setattr(decoded, "CACHE_FORMAT", 4)
        older.setattr(decoding, "decode", lambda path, size: (np.full((size, size, 3), 9, np.uint8), False))
        assert read_class_folders(files, 4)[0].max() == 9
    assert read_class_folders(files, 4)[0][0, 0].tolist() == LEVELS.tolist()


def test_a_header_that_asks_for_too_many_pixels_is_refused(tmp_path):
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / "x.pgm").write_bytes(f"P5\n{side} {side}\n65535\n".encode())
    with pytest.raises(ValueError, match=f"it has {side} x {side} pixels"):
        decode(tmp_path / "x.pgm", 8)
