"""Image files to RGB with 8 bits a channel; ``docs/image-folders.md`` lists what becomes of each kind.

Shapes: H height · W width · S size.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.io.errors import reason_of
from core.io.files import check_regular

# Pillow's other formats stay closed; PostScript among them is handed to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXTENSIONS = frozenset(ext for ext, kind in Image.registered_extensions().items() if kind in FORMATS)
MAX_PIXELS = 1 << 26  # 200 MB decoded; a damaged or forged header easily asks for more
BACKGROUND = "white"  # behind transparent pixels, whose own colour is arbitrary

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT, SMIN, SMAX = 258, 262, 339, 340, 341  # tags of TIFF
SIGNED = 2  # a sample format
WHITE_IS_ZERO = 0  # a photometric interpretation


Decoded = tuple[np.ndarray, bool]  # an image, uint8 (S, S, 3), and whether its file has more frames


def decode_ahead(paths: Sequence[str], size: int, chunk: int) -> Iterator[list[Decoded | str]]:
    """``decode_or_reason`` of ``chunk`` files at a time by all cores, the next ones while these are used."""
    cores = os.cpu_count() or 1
    # Each task is a part of a chunk: an interrupt while a task is submitted may leave the pool locked.
    part = max(1, chunk // (4 * cores))
    waiting: deque[list[Future[list[Decoded | str]]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for start in range(0, len(paths), chunk):
                end = min(start + chunk, len(paths))
                waiting.append(
                    [
                        pool.submit(_decode_part, paths[first : min(first + part, end)], size)
                        for first in range(start, end, part)
                    ]
                )
                if len(waiting) > 1:
                    yield _results(waiting.popleft())
            yield from map(_results, waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_part(paths: Sequence[str], size: int) -> list[Decoded | str]:
    return [decode_or_reason(path, size) for path in paths]


def _results(futures: list[Future[list[Decoded | str]]]) -> list[Decoded | str]:
    return [result for future in futures for result in future.result()]


def decode_or_reason(path: str, size: int) -> Decoded | str:
    """What ``decode`` returns, or what is wrong with the file."""
    try:
        check_regular(path)
    except OSError as error:
        return f"cannot be read: {error}"
    try:
        return decode(path, size)
    except UnidentifiedImageError:
        reason = f"it is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    except Exception as error:  # on damaged files Pillow's decoders raise errors of many types
        reason = reason_of(error)
    return f"cannot be read as an image ({reason})"


def decode(path: str | Path, size: int) -> Decoded:
    """The first frame, upright, resized at the short side and cropped in the centre; whether there are more.

    Returns uint8 [S, S, 3] and a bool. On damaged files Pillow's decoders raise errors of many types.
    """
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width} x {height} pixels; {MAX_PIXELS:,} are allowed")
        has_more_frames = bool(getattr(image, "is_animated", False))
        image.load()
        # Pillow applies the orientation of a TIFF itself and forgets it, so none is applied twice.
        with suppress(Exception):  # on damaged EXIF Pillow raises errors of many types; the pixels are intact
            ImageOps.exif_transpose(image, in_place=True)
        return to_square(image, size, tags_of(image)), has_more_frames


def tags_of(image: Image.Image) -> Any:
    """The tags of an opened TIFF, which copies of the image lack; of others none."""
    return getattr(image, "tag_v2", {})


def to_square(image: Image.Image, size: int, tags: Any) -> np.ndarray:
    """The image as RGB, resized at the short side and cropped in the centre: uint8 [S, S, 3].

    ``tags`` are those of the TIFF that it comes from, if any.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    # Resizing the box alone keeps a strip of one pixel's width small: its rest is never enlarged.
    return np.asarray(to_rgb(image, tags).resize((size, size), Image.Resampling.BILINEAR, box))


def to_rgb(image: Image.Image, tags: Any) -> Image.Image:
    """The image as RGB: more than 8 bits are scaled to 8, transparent pixels lie on white.

    Raises ValueError if the values' range is neither known from their type nor declared by the file.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16") or SIGNED in tags.get(SAMPLE_FORMAT, ()):
        return _grey(image, tags).convert("RGB")
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, BACKGROUND)
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")  # PNG, PPM and TIFF of 16 bits a colour: Pillow keeps the upper 8


def _grey(image: Image.Image, tags: Any) -> Image.Image:
    """Grey values of more than 8 bits, or signed ones, scaled to 0..255 by their range."""
    values = _values(image, tags)
    low, high = _range_of(values, image, tags)
    share = (values.astype(np.float32) - low) / (high - low)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts images of 8 bits alone
        share = 1 - share
    grey = np.rint(share * 255).astype(np.uint8)
    transparent = image.info.get("transparency")  # of a PNG: the grey value that is not shown
    if transparent is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _values(image: Image.Image, tags: Any) -> np.ndarray:
    """The numbers in the file, of the type that they have there: [H, W]."""
    values = np.asarray(image)
    is_signed = SIGNED in tags.get(SAMPLE_FORMAT, ())
    if image.mode == "L":
        return values.view(np.int8)
    if image.mode == "I" and tags.get(BITS_PER_SAMPLE) == (32,) and not is_signed:
        return values.view(np.uint32)
    return values


def _range_of(values: np.ndarray, image: Image.Image, tags: Any) -> tuple[float, float]:
    """The values that stand for black and for white.

    They are what a TIFF declares as SMinSampleValue and SMaxSampleValue (its Min- and MaxSampleValue are
    statistics, by the specification no range), the whole range of unsigned 16 bits, or 0 and 1 for floats.
    Signed values and 32 bits have no usual range: nearly all such files would be black.
    """
    if not np.isfinite(values).all():
        raise ValueError("some of its values are not finite")
    least, most = values.min(), values.max()
    found = f"its values are {least:g} to {most:g}"
    if SMAX in tags:
        low, high = (float(np.ravel(tags.get(tag, 0))[0]) for tag in (SMIN, SMAX))
        if not (math.isfinite(low) and low < high and low <= least and most <= high):
            raise ValueError(f"{found}; it declares {low:g} to {high:g}")
        return low, high
    if image.mode == "F":
        if least < 0 or most > 1:
            raise ValueError(f"{found}; floats must be 0 to 1, or the TIFF must declare SMaxSampleValue")
        return 0, 1
    if image.mode.startswith("I;16"):
        return 0, 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    # PNG, which older versions of Pillow open as 32 bits, and PPM, which it scales.
    if not tags and least >= 0 and most < 2**16:
        return 0, 2**16 - 1
    raise ValueError(f"{found}; they must be unsigned 8 or 16 bits, or the TIFF must declare SMaxSampleValue")
