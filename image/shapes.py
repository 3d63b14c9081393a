"""The built-in image dataset: ten shapes under nuisances of colour, texture, position, size and rotation.

Shapes: N images · S size, in pixels.
"""

from collections.abc import Callable

import numpy as np

SIZE = 32
CONTRAST = (0.3, 0.6)  # between the levels of shape and background; below 0.3 shapes cannot be seen
# How much colour and texture vary. With more, contrastive training learns these instead of the shapes.
TINT = 0.08
TEXTURE = 0.03
RAMP = 0.03


def _box(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v))


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - (0.65 + 0.33 * np.cos(5 * np.arctan2(v, u)))


def _corner(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    arms = np.minimum(np.abs(u + 0.55), np.abs(v + 0.55)) - 0.27
    return np.maximum(arms, np.maximum(np.maximum(-u, -v) - 0.82, np.maximum(u, v) - 0.82))


# The approximate signed distance of (u, v) to each shape of radius 1, negative inside it.
DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.2,
    "square": lambda u, v: _box(u, v) - 0.78,
    "frame": lambda u, v: np.abs(_box(u, v) - 0.65) - 0.17,
    "triangle": lambda u, v: np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.5,
    "cross": lambda u, v: np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.27, _box(u, v) - 0.95),
    "star": _star,
    "stripes": lambda u, v: np.maximum(np.abs(np.abs(u) - 0.55) - 0.2, np.abs(v) - 0.9),
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.75 - np.hypot(u - 0.5, v)),
    "corner": _corner,
}
CLASSES = tuple(DISTANCES)


def make_shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images, classes balanced and in random order: uint8 [N, 3, S, S], int64 [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    grid = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
    y, x = np.meshgrid(grid, grid, indexing="ij")  # [-1, 1] across the image

    background, colour = _colours(count, rng)
    images = background[:, :, None, None] + _texture(count, rng)
    images += _gradient(count, rng, x, y)
    images = _paint_distractor(images, rng, x, y)

    radius = rng.uniform(0.4, 0.75, count)
    centre = rng.uniform(-0.25, 0.25, (2, count)) * (1.4 - radius)
    angle = rng.uniform(0, 2 * np.pi, count)
    across, down = (_column(values) for values in centre)
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    u = ((x - across) * cos + (y - down) * sin) / _column(radius)
    v = ((y - down) * cos - (x - across) * sin) / _column(radius)
    distances = np.empty((count, SIZE, SIZE), np.float32)
    for label, distance in enumerate(DISTANCES.values()):
        is_class = labels == label
        distances[is_class] = distance(u[is_class], v[is_class])
    edge = 2 / SIZE / _column(radius)  # a pixel, in the shape's own units
    cover = np.clip(0.5 - distances / edge, 0, 1)[:, None]
    shade = colour[:, :, None, None] + 0.5 * _texture(count, rng)
    images = images * (1 - cover) + shade * cover
    images += rng.normal(0, 0.03, images.shape)
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8), labels.astype(np.int64)


def _colours(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Background and foreground colours, [N, 3] each: a level and a darker or lighter one, both tinted."""
    level = rng.uniform(0.2, 0.8, (count, 1))
    contrast = np.where(level > 0.5, -1, 1) * rng.uniform(*CONTRAST, (count, 1))
    tints = rng.normal(0, TINT, (2, count, 3))
    return np.clip(level + tints[0], 0, 1), np.clip(level + contrast + tints[1], 0, 1)


def _texture(count: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured noise of random grain and strength: [N, 3, S, S]."""
    grain = rng.choice([1, 2, 4], count)
    noise = np.empty((count, 3, SIZE, SIZE))
    for size in (1, 2, 4):
        is_grain = grain == size
        coarse = rng.normal(size=(is_grain.sum(), 3, SIZE // size, SIZE // size))
        noise[is_grain] = coarse.repeat(size, axis=2).repeat(size, axis=3)
    return noise * rng.uniform(0, TEXTURE, (count, 1, 1, 1))


def _gradient(count: int, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A linear ramp of random colour and direction: [N, 3, S, S]."""
    slope = rng.normal(0, RAMP, (2, count, 3, 1, 1))
    return slope[0] * x + slope[1] * y


def _paint_distractor(
    images: np.ndarray, rng: np.random.Generator, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """A small disc of a random colour anywhere: [N, 3, S, S] -> the same."""
    count = len(images)
    centre, radius = rng.uniform(-1, 1, (2, count)), rng.uniform(0.08, 0.2, count)
    distances = np.hypot(x - _column(centre[0]), y - _column(centre[1])) - _column(radius)
    cover = np.clip(0.5 - distances * SIZE / 2, 0, 1)[:, None]
    return images * (1 - cover) + rng.uniform(0, 1, (count, 3, 1, 1)) * cover


def _column(values: np.ndarray) -> np.ndarray:
    """[N] -> [N, 1, 1]."""
    return values[:, None, None]
