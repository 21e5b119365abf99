"""Clips from still photographs: a slow pan, zoom and slight turn over each (the Ken Burns effect).

Real texture for the autoencoder where no footage is at hand; the motion is smooth. Needs the extra `photos` only for
the photographs that the scikit-image wheel carries; any folder of pictures does as well.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hy_data.errors import MissingFootage

WHEEL_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
"""The photographs among the files of the scikit-image wheel; its drawings, scans and test cards are left out."""
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
HELD_OUT_STEM = "coffee"

_TURN = math.radians(6.0)
_ZOOM_RANGE = (0.8, 1.25)
_PAN = 0.4
_SUPERSAMPLING = 2


def wheel_photographs() -> list[Path]:
    """Paths of the photographs in the installed scikit-image wheel, found without importing it.

    Raises:
        MissingFootage: when scikit-image is not installed, or carries none of them.
    """
    spec = find_spec("skimage")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    paths = [folder / name for name in WHEEL_PHOTOGRAPHS if (folder / name).is_file()] if folder else []
    if not paths:
        raise MissingFootage(
            "the photographs of the scikit-image wheel are not installed; "
            "run `pip install 'hy-data[photos]'` or name a folder of pictures"
        )
    return paths


def folder_photographs(folder: str | Path) -> list[Path]:
    """Paths of the pictures directly in a folder, sorted by name.

    Raises:
        MissingFootage: when the folder does not exist or holds no picture.
    """
    folder = Path(folder)
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise MissingFootage(f"{folder} holds no picture; a folder with files ending in {suffixes} is needed")
    return paths


def split_photographs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Part photographs into those to train on and one never trained on: "coffee" where it is among them, else the last.

    Raises:
        MissingFootage: when there are fewer than two.
    """
    if len(paths) < 2:
        raise MissingFootage(f"at least two pictures are needed, to train on and to validate on; got {len(paths)}")
    held_out = next((path for path in paths if path.stem == HELD_OUT_STEM), paths[-1])
    return [path for path in paths if path != held_out], [held_out]


class KenBurns:
    """A seeded supply of moving crops over photographs; clip `i` is the same on every machine.

    Each clip takes one photograph, maybe mirrored, and moves a window of the frame's aspect in a straight line over it,
    by at most 0.4 of the window, while it zooms by at most 1.25 and turns by at most 12 degrees. The window is anything
    from one photograph pixel per frame pixel up to the largest that fits. A photograph that is being shrunk is averaged
    over area first, so that nothing flickers.

    Args:
        paths: the photographs; grey ones become grey RGB.
        size: frame height and width in pixels.
        frames: frames per clip; one gives stills.
        seed: another seed is another supply.

    Raises:
        MissingFootage: for a file that is not a picture.
        ValueError: for an empty list, a size or a frame count below 1.
    """

    def __init__(
        self, paths: Sequence[Path], *, size: tuple[int, int] = (64, 64), frames: int = 9, seed: int = 0
    ) -> None:
        """Read every photograph once and keep it with its halved copies."""
        if not paths or min(size) < 1 or frames < 1:
            raise ValueError(f"need a photograph, a size and frames of at least 1; got {len(paths)}, {size}, {frames}")
        self.height, self.width = size
        self.frames = frames
        self.seed = seed
        self.names = [path.stem.replace("_", " ") for path in paths]
        self._pyramids = [_pyramid(path) for path in paths]

    def name(self, index: int) -> str:
        """Name of the photograph that clip `index` is taken from."""
        return self.names[self._draw(index)[0]]

    def clip(self, index: int) -> npt.NDArray[np.uint8]:
        """Render clip number `index`.

        Returns:
            frames of shape (frames, height, width, 3), uint8 RGB.
        """
        which, rng = self._draw(index)
        pyramid = self._pyramids[which]
        height, width = pyramid[0].shape[:2]
        reach_x = (self.width * math.cos(_TURN) + self.height * math.sin(_TURN)) / 2
        reach_y = (self.width * math.sin(_TURN) + self.height * math.cos(_TURN)) / 2
        largest = min(width / (2 * reach_x), height / (2 * reach_y))
        smallest = min(1.0, 0.7 * largest)
        first = smallest * (largest / smallest) ** rng.random()
        scales = np.array([first, np.clip(first * rng.uniform(*_ZOOM_RANGE), smallest, largest)])
        pan = rng.uniform(-_PAN, _PAN, 2) * first * (self.width, self.height)
        low, high = (
            scales[:, None] * (reach_x, reach_y),
            np.array([width, height]) - scales[:, None] * (reach_x, reach_y),
        )
        start = rng.uniform(low[0], np.maximum(low[0], high[0]))
        # Both ends lie inside the photograph, and the places that do form a convex set: so does all between them.
        centres = np.stack([start, np.clip(start + pan, low[1], np.maximum(low[1], high[1]))])
        turns = rng.uniform(-_TURN, _TURN, 2)
        mirrored = rng.random() < 0.5
        frames_THWC = np.empty((self.frames, self.height, self.width, 3), np.uint8)
        for number, progress in enumerate(np.linspace(0.0, 1.0, self.frames)):
            mix = np.array([1.0 - progress, progress])
            frames_THWC[number] = self._window(pyramid, float(mix @ scales), mix @ centres, float(mix @ turns))
        return np.ascontiguousarray(frames_THWC[:, :, ::-1]) if mirrored else frames_THWC

    def _draw(self, index: int) -> tuple[int, np.random.Generator]:
        """The photograph of clip `index`, and the generator for the rest of its choices."""
        rng = np.random.default_rng((self.seed, index))
        return int(rng.integers(len(self._pyramids))), rng

    def _window(
        self, pyramid: list[npt.NDArray[np.uint8]], scale: float, centre: npt.NDArray[np.float64], turn: float
    ) -> npt.NDArray[np.uint8]:
        """One frame: `scale` photograph pixels per frame pixel around `centre`, turned by `turn` radians."""
        level = min(max(int(math.log2(scale)), 0), len(pyramid) - 1) if scale > 1 else 0
        picture_HWC = pyramid[level]
        step = scale / 2**level / _SUPERSAMPLING
        fine_width, fine_height = self.width * _SUPERSAMPLING, self.height * _SUPERSAMPLING
        linear = step * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        # Pixel centres lie at halves in photograph coordinates and at whole numbers in OpenCV's.
        offset = centre / 2**level - 0.5 - linear @ np.array([(fine_width - 1) / 2, (fine_height - 1) / 2])
        fine_HWC = cv2.warpAffine(
            picture_HWC,
            np.column_stack([linear, offset]),
            (fine_width, fine_height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return cv2.resize(fine_HWC, (self.width, self.height), interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )


def _pyramid(path: Path) -> list[npt.NDArray[np.uint8]]:
    """Read a picture as RGB and halve it by area averaging while its shorter side stays 16 pixels or more."""
    picture_HWC = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture_HWC is None:
        raise MissingFootage(f"{path} is not a picture that OpenCV can read")
    levels = [cv2.cvtColor(picture_HWC, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)]
    while min(levels[-1].shape[:2]) >= 32:
        height, width = levels[-1].shape[:2]
        # An odd last row or column is dropped, so that a level's pixel is always the mean of exactly four.
        even_HWC = levels[-1][: height // 2 * 2, : width // 2 * 2]
        half_HWC = cv2.resize(even_HWC, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(half_HWC.astype(np.uint8, copy=False))
    return levels
