"""The embedded image dataset: ten shapes under nuisances of colour, texture, place, size and rotation.

Shapes: N images · S size, in pixels.
"""

import numpy as np

CLASSES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "cross",
    "star",
    "stripes",
    "crescent",
    "corner",
)
SIZE = 32
DISTRACTORS = 1
CONTRAST = (0.3, 0.6)  # between a shape's level and its background's: below the first nothing is to be seen
# How far colour and texture tell one image from another. More, and contrastive training is content with them.
TINT = 0.08
TEXTURE = 0.03
RAMP = 0.03


def make_shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images, classes balanced and in random order: uint8 [N, 3, S, S], int64 [N]."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(count) % len(CLASSES))
    grid = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
    y, x = np.meshgrid(grid, grid, indexing="ij")  # [-1, 1] across the image

    background, colour = _colours(count, draw)
    images = background[:, :, None, None] + _texture(count, draw)
    images += _gradient(count, draw, x, y)
    images = _paint_distractors(images, draw, x, y)

    radius = draw.uniform(0.4, 0.75, count)
    centre = draw.uniform(-0.25, 0.25, (2, count)) * (1.4 - radius)
    angle = draw.uniform(0, 2 * np.pi, count)
    across, down = (_column(values) for values in centre)
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    u = ((x - across) * cos + (y - down) * sin) / _column(radius)
    v = ((y - down) * cos - (x - across) * sin) / _column(radius)
    inside = np.empty((count, SIZE, SIZE), np.float32)
    for label, name in enumerate(CLASSES):
        of_class = labels == label
        inside[of_class] = distance(name, u[of_class], v[of_class])
    edge = 2 / SIZE / _column(radius)  # a pixel, in the shape's own units
    cover = np.clip(0.5 - inside / edge, 0, 1)[:, None]
    shade = colour[:, :, None, None] + 0.5 * _texture(count, draw)
    images = images * (1 - cover) + shade * cover
    images += draw.normal(0, 0.03, images.shape)
    return (np.clip(images, 0, 1) * 255).round().astype(np.uint8), labels.astype(np.int64)


def distance(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """About the distance of (u, v) to a shape of radius 1, negative inside it."""
    r = np.hypot(u, v)
    box = np.maximum(np.abs(u), np.abs(v))
    if name == "disc":
        return r - 0.9
    if name == "ring":
        return np.abs(r - 0.75) - 0.2
    if name == "square":
        return box - 0.78
    if name == "frame":
        return np.abs(box - 0.65) - 0.17
    if name == "triangle":
        return np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.5
    if name == "cross":
        return np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.27, box - 0.95)
    if name == "star":
        angle = np.arctan2(v, u)
        return r - (0.65 + 0.33 * np.cos(5 * angle))
    if name == "stripes":
        return np.maximum(np.abs(np.abs(u) - 0.55) - 0.2, np.abs(v) - 0.9)
    if name == "crescent":
        return np.maximum(r - 0.95, 0.75 - np.hypot(u - 0.5, v))
    if name == "corner":
        arms = np.minimum(np.abs(u + 0.55), np.abs(v + 0.55)) - 0.27
        return np.maximum(arms, np.maximum(np.maximum(-u, -v) - 0.82, np.maximum(u, v) - 0.82))
    raise ValueError(f"no shape is called {name}")


def _colours(count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Background and foreground colours, [N, 3] each: a level and a darker or lighter one, both tinted."""
    level = draw.uniform(0.2, 0.8, (count, 1))
    step = np.where(level > 0.5, -1, 1) * draw.uniform(*CONTRAST, (count, 1))
    tints = draw.normal(0, TINT, (2, count, 3))
    return np.clip(level + tints[0], 0, 1), np.clip(level + step + tints[1], 0, 1)


def _texture(count: int, draw: np.random.Generator) -> np.ndarray:
    """Coloured noise of random grain and strength: [N, 3, S, S]."""
    grain = draw.choice([1, 2, 4], count)
    noise = np.empty((count, 3, SIZE, SIZE))
    for size in (1, 2, 4):
        of_grain = grain == size
        coarse = draw.normal(size=(of_grain.sum(), 3, SIZE // size, SIZE // size))
        noise[of_grain] = coarse.repeat(size, axis=2).repeat(size, axis=3)
    return noise * draw.uniform(0, TEXTURE, (count, 1, 1, 1))


def _gradient(count: int, draw: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A linear ramp of random colour and direction: [N, 3, S, S]."""
    slopes = draw.normal(0, RAMP, (2, count, 3, 1, 1))
    return slopes[0] * x + slopes[1] * y


def _paint_distractors(
    images: np.ndarray, draw: np.random.Generator, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Small discs of random colours anywhere: [N, 3, S, S] -> the same."""
    count = len(images)
    for _ in range(DISTRACTORS):
        place, radius = draw.uniform(-1, 1, (2, count)), draw.uniform(0.08, 0.2, count)
        far = np.hypot(x - _column(place[0]), y - _column(place[1])) - _column(radius)
        cover = np.clip(0.5 - far * SIZE / 2, 0, 1)[:, None]
        images = images * (1 - cover) + draw.uniform(0, 1, (count, 3, 1, 1)) * cover
    return images


def _column(values: np.ndarray) -> np.ndarray:
    return values[:, None, None]
