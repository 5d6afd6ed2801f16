"""How a phantom is drawn: silhouette, texture of its modality, lesion and stain, smooth enough to compress."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantom_questions import SIZE, Phantom

_DRAWN = 192  # pixels of the side that is computed: a quarter of the work, and smooth images compress
OpenedImage = NDArray[np.floating[Any]]  # (192, 192, 3), values 0 to 1
Plane = NDArray[np.floating[Any]]  # (192, 192)
_Y, _X = (np.mgrid[0:_DRAWN, 0:_DRAWN].astype(np.float32) + 0.5) / (_DRAWN / 2) - 1.0


def draw(phantom: Phantom) -> Image.Image:
    """The phantom's image, 384 x 384 RGB; the same phantom gives the same pixels."""
    rng = np.random.default_rng(phantom.seed)
    left, up, scale, light = rng.uniform((-0.05, -0.05, 0.93, 0.9), (0.05, 0.05, 1.07, 1.1)).tolist()
    x, y = (_X - left) / scale, (_Y - up) / scale
    mask = _silhouette(phantom.anatomy, x, y)
    ground, tissue = _PALETTE[phantom.modality]
    image = _blend(np.broadcast_to(_colour(ground), (_DRAWN, _DRAWN, 3)), mask, _colour(tissue))
    image = _TEXTURE[phantom.modality](image * light, mask, x, y, rng)
    image = _lesion(image, phantom, rng)
    image = _blend(image, _edge(np.maximum(abs(_X), abs(_Y)) - 0.86) * 0.95, _colour(_STAINS[phantom.stain]))
    image = image * (1 + _speckle(rng, 12, 0.05))[..., None]
    # 64 levels and doubled pixels: a PNG of 30 KB where a smooth enlargement takes 80
    pixels = (np.clip(image, 0, 1) * 63).astype(np.uint8) * 4
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def _edge(distance: Plane, sharpness: float = 40.0) -> Plane:
    """1 inside (distance > 0), 0 outside, smooth between."""
    return 0.5 + 0.5 * np.tanh(sharpness / 2 * distance)


def _colour(rgb: Sequence[float]) -> OpenedImage:
    return np.asarray(rgb, np.float32)


def _blend(image: OpenedImage, weight: Plane, colour: OpenedImage) -> OpenedImage:
    return image + weight[..., None] * (colour - image)


def _speckle(rng: np.random.Generator, cells: int, strength: float) -> Plane:
    """Smooth noise of mean 0; smooth, so that a PNG of it stays small."""
    noise = Image.fromarray(rng.normal(0, strength, (cells, cells)).astype(np.float32))
    return np.asarray(noise.resize((_DRAWN, _DRAWN), Image.Resampling.BICUBIC))


def _silhouette(anatomy: int, x: Plane, y: Plane) -> Plane:
    """Disc, two lobes, a lying band or a standing band: they differ in which sixteenths of the image they fill."""
    if anatomy == 0:
        return _edge(0.76 - np.hypot(x, y))
    if anatomy == 1:
        return _edge(0.37 - np.hypot(abs(x) - 0.43, y / 2.0))
    along, across = (x, y) if anatomy == 2 else (y, x)
    bend = 0.10 * np.cos(2.5 * along)
    return _edge(np.minimum(0.34 - abs(across - bend), 0.92 - abs(along)))


def _lesion(image: OpenedImage, phantom: Phantom, rng: np.random.Generator) -> OpenedImage:
    stretch, angle, distance = rng.uniform((0.95, 0.0, 0.05), (1.05, 2 * math.pi, 0.22)).tolist()
    radius = _RADIUS[phantom.grade] * stretch
    dx, dy = _X - distance * math.cos(angle), _Y - distance * math.sin(angle)
    reach = np.hypot(dx, dy)
    if phantom.disease == 3:
        weight = _edge(radius * 1.2 - (abs(dx) + abs(dy)))  # a diamond of about the same area
    elif phantom.disease == 2:
        weight = _edge(radius - reach) * (1 - 0.8 * _edge(radius * 0.45 - reach))  # a ring
    else:
        weight = _edge(radius - reach)
    return _blend(image, weight * 0.94, _colour(_LESIONS[phantom.disease]))


_RADIUS = (0.13, 0.26, 0.41, 0.60)  # of half the image's side
_LESIONS = ((1.0, 1.0, 0.90), (0.06, 0.02, 0.05), (0.92, 0.20, 0.16), (0.22, 0.38, 0.95))
_STAINS = ((0.96, 0.69, 0.08), (0.05, 0.70, 0.66), (0.58, 0.18, 0.82), (0.38, 0.44, 0.08))

# Background and tissue.
_PALETTE = {
    Modality.CT: ((0.03, 0.03, 0.03), (0.52, 0.52, 0.52)),
    Modality.MRI: ((0.04, 0.04, 0.16), (0.42, 0.46, 0.62)),
    Modality.XRAY: ((0.25, 0.27, 0.30), (0.82, 0.84, 0.86)),
    Modality.ULTRASOUND: ((0.02, 0.02, 0.02), (0.36, 0.34, 0.26)),
    Modality.DERMOSCOPY: ((0.94, 0.80, 0.72), (0.66, 0.40, 0.32)),
    Modality.FUNDUS: ((0.10, 0.02, 0.0), (0.82, 0.38, 0.10)),
    Modality.OCT: ((0.02, 0.08, 0.04), (0.30, 0.62, 0.36)),
    Modality.MICROSCOPY: ((0.96, 0.91, 0.96), (0.74, 0.48, 0.76)),
}

Texture = Callable[[OpenedImage, Plane, Plane, Plane, np.random.Generator], OpenedImage]


def _bone(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """CT: a bright shell around the tissue."""
    return image + (4 * mask * (1 - mask) * 0.8)[..., None]


def _folds(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """MRI: wavy grey matter."""
    wave = np.sin(11 * x + 2 * np.sin(5 * y + float(rng.uniform(0, 6))))
    return image + (mask * 0.10 * wave)[..., None]


def _ribs(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """X-ray: bright arches across everything."""
    return image + (0.10 * _edge(np.sin(15 * (y + 0.25 * x * x) + float(rng.uniform(0, 6))) - 0.2, 10))[..., None]


def _fan(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """Ultrasound: speckle inside a sector, black outside."""
    speckled = image * (1 + _speckle(rng, 40, 0.35))[..., None] + 0.05
    return speckled * _edge(0.66 - abs(np.arctan2(_X, _Y + 1.7)))[..., None]


def _hairs(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """Dermoscopy: a few dark hairs."""
    hair = _edge(np.sin(9 * x + 4 * y + 0.8 * y * y + float(rng.uniform(0, 6))) - 0.985, 300)
    return image * (1 - 0.5 * hair)[..., None]


def _vessels(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """Fundus: branching vessels and a bright disc."""
    lines = abs(np.sin(3.4 * y + 1.6 * x * x + float(rng.uniform(-0.3, 0.3))))
    dark = _blend(image, mask * 0.55 * _edge(0.10 - lines, 60), _colour((0.45, 0.08, 0.02)))
    return _blend(dark, 0.8 * mask * _edge(0.14 - np.hypot(x + 0.45, y)), _colour((1.0, 0.85, 0.45)))


def _layers(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """OCT: lying layers, with a shallow pit."""
    depth = y + 0.12 * np.exp(-6 * x * x)
    return image * (1 + 0.35 * mask * np.sin(24 * depth + float(rng.uniform(0, 6))))[..., None]


def _cells(image: OpenedImage, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> OpenedImage:
    """Microscopy: rows of stained nuclei."""
    a, b = rng.uniform(0, 6, 2).tolist()
    nuclei = _edge(np.sin(15 * x + a + np.sin(4 * y)) * np.sin(15 * y + b) - 0.55, 12)
    return _blend(image, nuclei * 0.6, _colour((0.40, 0.20, 0.58)))


_TEXTURE: dict[Modality, Texture] = {
    Modality.CT: _bone,
    Modality.MRI: _folds,
    Modality.XRAY: _ribs,
    Modality.ULTRASOUND: _fan,
    Modality.DERMOSCOPY: _hairs,
    Modality.FUNDUS: _vessels,
    Modality.OCT: _layers,
    Modality.MICROSCOPY: _cells,
}
