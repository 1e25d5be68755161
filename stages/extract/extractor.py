"""One video from file to features: decode, detect, choose the person, fill gaps, align, encode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.features import NO_FACE, OK, TRUNCATED, UNREADABLE, WIDTH, FrameStatus, VideoFeatures
from ...cache.fingerprint import ExtractionSettings, fingerprint
from ..align import crop_by_box, crop_by_landmarks, crop_middle, resize
from .detection import Detector
from .encoder_base import Encoder
from .tracking import Face, Follower, GapFiller
from .video_reader import IMAGE_ENDINGS, CannotDecode, Video, open_video

MOST_MISSING = 0.5
"""A video in which more than this share of frames has no face counts as one without a face."""


@dataclass(frozen=True)
class Job:
    """One video to be extracted: its id, where it lies, and what the manifest says of the picture."""

    id: str
    path: Path
    rotation: str = ""
    region: str = ""


@dataclass
class _Gathering:
    """A video in the making: what is known per frame so far, and the features that have come back."""

    job: Job
    video: Video | None = None
    shape: tuple[int, ...] = (0, 0)
    faces: list[Face | None] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    failure: str = ""
    ended: bool = False

    @property
    def complete(self) -> bool:
        return self.ended and len(self.features) == len(self.faces)


def extract_videos(
    jobs: Iterable[Job],
    detector: Detector | None,
    encoder: Encoder,
    settings: ExtractionSettings,
    on_frame: Callable[[Job], None] = lambda job: None,
    on_end: Callable[[], None] = lambda: None,
) -> Iterator[VideoFeatures]:
    """Yield the finished videos in the order of the jobs; batches for the encoder are filled across them.

    ``detector`` None means that the frames are crops already. A video that cannot be read comes out with no frames
    and the reason in its note. ``on_frame`` is called when a video begins and after each of its frames, ``on_end`` after
    its last. Memory holds two
    batches of crops and the frames of one open gap, however long the video.
    """
    waiting: list[_Gathering] = []
    crops = np.empty((encoder.batch, settings.size, settings.size, 3), np.uint8)
    owners: list[_Gathering] = []
    under_way: list[tuple[list[_Gathering], Callable[[], np.ndarray]]] = []

    def collect() -> None:
        for whose, result in under_way:
            for owner, feature in zip(whose, result(), strict=True):
                owner.features.append(feature)
        under_way.clear()

    def encode() -> None:
        # on a GPU the batch before this one is fetched only now, so that it was computed while frames were decoded
        started = (owners.copy(), encoder.begin(crops[: len(owners)]))
        owners.clear()
        collect()
        under_way.append(started)

    for job in jobs:
        on_frame(job)
        gathering = _Gathering(job)
        waiting.append(gathering)
        try:
            gathering.video = open_video(job.path, job.rotation, job.region)
            for picture, face in _faces(gathering.video, detector):
                gathering.shape = picture.shape
                gathering.faces.append(face)
                crops[len(owners)] = _crop(picture, face, settings)
                owners.append(gathering)
                if len(owners) == encoder.batch:
                    encode()
                on_frame(job)
        except CannotDecode as reason:
            gathering.failure = str(reason)
        gathering.ended = True
        on_end()
        while waiting and waiting[0].complete:
            yield _finished(waiting.pop(0), settings)
    if owners:
        encode()
    collect()
    for gathering in waiting:
        yield _finished(gathering, settings)


def _faces(video: Video, detector: Detector | None) -> Iterator[tuple[np.ndarray, Face | None]]:
    if detector is None:
        for picture in video.frames():
            yield picture, _whole(picture)
        return
    filler, follower = GapFiller(), Follower(detector)
    for picture in video.frames():
        yield from filler.feed(picture, follower(picture))
    yield from filler.finish()


def _whole(picture: np.ndarray) -> Face:
    height, width = picture.shape[:2]
    nowhere = np.full((5, 2), np.nan, np.float32)
    return Face(np.array([0, 0, width, height], np.float32), nowhere, float("nan"), FrameStatus.GIVEN)


def _crop(picture: np.ndarray, face: Face | None, settings: ExtractionSettings) -> np.ndarray:
    if face is None:
        return crop_middle(picture, settings.size)
    if face.status == FrameStatus.GIVEN:
        return resize(picture, settings.size)
    if settings.align == "box":
        return crop_by_box(picture, face.box, settings.size)
    return crop_by_landmarks(picture, face.landmarks, settings.size)


def _finished(gathering: _Gathering, settings: ExtractionSettings) -> VideoFeatures:
    job, video = gathering.job, gathering.video
    faces, features = gathering.faces, gathering.features
    status, note = _judge(gathering)
    if status == UNREADABLE:
        faces, features = [], []
    count = len(faces)
    known = [face if face and face.status != FrameStatus.MISSING else None for face in faces]
    source = _hash_of(job.path)
    return VideoFeatures(
        id=job.id,
        features=np.array(features, np.float16).reshape(count, WIDTH),
        frame_status=np.array([f.status if f else FrameStatus.MISSING for f in faces], np.uint8),
        score=np.array([f.score if f else np.nan for f in known], np.float32),
        box=np.array([f.box if f else np.full(4, np.nan) for f in known], np.float32).reshape(count, 4),
        landmarks=np.array([f.landmarks if f else np.full((5, 2), np.nan) for f in known], np.float32).reshape(
            count, 5, 2
        ),
        fps=video.fps if video else 0.0,
        declared=video.declared if video else -1,
        width=gathering.shape[1],
        height=gathering.shape[0],
        fingerprint=fingerprint(settings, source, job.rotation, job.region),
        source_sha256=source,
        status=status,
        note=note,
    )


def _hash_of(path: Path) -> str:
    """Return the hash of a source, or an empty text where it cannot be read, which no later hash will equal."""
    try:
        return sha256_of(path, IMAGE_ENDINGS)
    except OSError:
        return ""


def _judge(gathering: _Gathering) -> tuple[str, str]:
    """Return a video's status and, unless it is ok, the reason."""
    count = len(gathering.faces)
    if gathering.failure:
        return UNREADABLE, gathering.failure
    if not count:
        return UNREADABLE, "no frame can be decoded"
    if not np.isfinite(np.array(gathering.features, np.float32)).all():
        return UNREADABLE, "the encoder gave numbers that are not finite"
    missing = sum(face is None or face.status == FrameStatus.MISSING for face in gathering.faces)
    if missing > MOST_MISSING * count:
        return NO_FACE, f"no face in {missing} of {count} frames"
    if gathering.video and gathering.video.is_short(count):
        return TRUNCATED, f"{count} frames could be decoded, the file declares {gathering.video.declared}"
    return OK, ""
