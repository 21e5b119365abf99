"""Contact sheets: clips as rows of frames in one picture, to be looked at.

Shapes: T frames, H height, W width, C channels (red, green, blue).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hy_data.buckets import fit
from hy_data.files import staged

_GAP = 4
_LINE = 18
_PAPER = 255
_INK = (30, 30, 30)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a sheet: a label and the clip it shows, frames (T, H, W, 3) uint8 RGB."""

    label: str
    frames_THWC: npt.NDArray[np.uint8]


def contact_sheet(rows: Sequence[Row], *, columns: int = 8, frame_height: int = 96) -> npt.NDArray[np.uint8]:
    """Lay clips out in one picture: each row is a label above frames spread evenly from its clip's first to its last.

    Args:
        rows: at least one; clips may differ in length and size.
        columns: frames per row; a clip with fewer is shown whole.
        frame_height: height of each frame in the sheet, in pixels; the width follows the first row's aspect.

    Returns:
        a picture of shape (H, W, 3), uint8 RGB.

    Raises:
        ValueError: for no rows, or a clip without frames.
    """
    if not rows or any(len(row.frames_THWC) == 0 for row in rows):
        raise ValueError("a contact sheet needs at least one row, and a frame in each")
    height, width = rows[0].frames_THWC.shape[1:3]
    cell_width = max(round(frame_height * width / height), 1)
    pitch = _LINE + frame_height + _GAP
    sheet_HWC = np.full((_GAP + pitch * len(rows), _GAP + (cell_width + _GAP) * columns, 3), _PAPER, np.uint8)
    for number, row in enumerate(rows):
        top = _GAP + number * pitch
        _write(sheet_HWC, row.label, top)
        count = len(row.frames_THWC)
        chosen = np.linspace(0, count - 1, min(columns, count)).round().astype(int)
        for column, frame_HWC in enumerate(fit(row.frames_THWC[chosen], frame_height, cell_width)):
            left = _GAP + column * (cell_width + _GAP)
            sheet_HWC[top + _LINE : top + _LINE + frame_height, left : left + cell_width] = frame_HWC
    return sheet_HWC


def write_contact_sheet(path: str | Path, rows: Sequence[Row], *, columns: int = 8, frame_height: int = 96) -> None:
    """Write a contact sheet as a PNG; arguments as `contact_sheet`.

    Args:
        path: where to; should end in .png. Missing folders are made.
        rows: the clips.
        columns: frames per row.
        frame_height: height of each frame in pixels.

    Raises:
        CannotWrite: when the place is forbidden or full.
        ValueError: as `contact_sheet`.
    """
    sheet_HWC = contact_sheet(rows, columns=columns, frame_height=frame_height)
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet_HWC, cv2.COLOR_RGB2BGR))
    with staged(path) as stage:
        stage.write_bytes(png.tobytes())


def _write(sheet_HWC: npt.NDArray[np.uint8], label: str, top: int) -> None:
    """Put a label on the sheet, cut where the sheet ends; letters that OpenCV's font lacks become question marks."""
    text = label.encode("ascii", "replace").decode()
    cv2.putText(sheet_HWC, text, (_GAP, top + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
