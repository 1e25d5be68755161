"""Multi-face tracking by box overlap (IoU); each track is encoded as stage one encodes the main face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.features import OK, WIDTH, FrameStatus, VideoFeatures
from ...cache.fingerprint import ExtractionSettings
from ..align import crop_by_box, crop_by_landmarks
from ..extract.detection import Detector, Faces
from ..extract.encoder_base import Encoder
from ..extract.tracking import CONTINUES, LONGEST_GAP, Face, GapFiller, iou
from ..extract.video_reader import open_video

FEWEST = 15
"""Frames a face must be seen in to count as a person: one sub-video. What is seen less is a passer-by, or no face."""


@dataclass
class _Follower:
    """One person while in view: the last box, how long it has been gone, and what is settled so far."""

    first: int
    last: np.ndarray
    gone: int = 0
    closed: bool = False
    filler: GapFiller = field(default_factory=GapFiller)
    faces: list[Face] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.closed and len(self.features) == len(self.faces)

    @property
    def seen(self) -> int:
        return sum(face.status == FrameStatus.DETECTED for face in self.faces)


def follow_everyone(
    path: Path,
    detector: Detector,
    encoder: Encoder,
    settings: ExtractionSettings,
    on_frame: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, VideoFeatures]]:
    """Yield (first frame, features) of each person when they have gone; raises CannotDecode.

    A face goes on where its box overlaps the last one by IoU 0.3; one that is lost for more than 12 frames has left,
    and who comes back later counts as somebody new. Memory holds the people in view, one batch of crops, and 12 frames.
    """
    video = open_video(path)
    crops = np.empty((encoder.batch, settings.size, settings.size, 3), np.uint8)
    owners: list[_Follower] = []
    followers: list[_Follower] = []

    def encode() -> None:
        for owner, feature in zip(owners, encoder(crops[: len(owners)]), strict=True):
            owner.features.append(feature)
        owners.clear()

    def take(follower: _Follower, settled: Iterator[tuple[np.ndarray, Face | None]]) -> None:
        for picture, face in settled:
            if face is None:
                raise ValueError("a follower begins with a face, so it always has one to borrow from")
            follower.faces.append(face)
            crops[len(owners)] = _crop(picture, face, settings)
            owners.append(follower)
            if len(owners) == encoder.batch:
                encode()

    shape = (0, 0)
    for number, picture in enumerate(video.frames()):
        shape = picture.shape
        faces = detector(picture)
        matched = _match(faces, followers)
        for follower in followers:
            place = matched.pop(id(follower), None)
            face = None if place is None else _face(faces, place)
            follower.gone = follower.gone + 1 if face is None else 0
            if follower.gone > LONGEST_GAP:
                follower.closed = True
                continue
            follower.last = follower.last if face is None else face.box
            take(follower, follower.filler.feed(picture, face))
        for place in matched.values():
            newcomer = _Follower(number, faces.boxes[place])
            followers.append(newcomer)
            take(newcomer, newcomer.filler.feed(picture, _face(faces, place)))
        for follower in [f for f in followers if f.complete]:
            if follower.seen >= FEWEST:
                yield follower.first, _features(path, follower, video.fps, shape)
        followers = [f for f in followers if not f.complete]
        on_frame()
    if owners:
        encode()
    for follower in followers:
        if follower.seen >= FEWEST:
            yield follower.first, _features(path, follower, video.fps, shape)


def _match(faces: Faces, followers: list[_Follower]) -> dict[int, int]:
    """Return which face each follower goes on as (by id of the follower), and faces of newcomers under negative keys.

    The best overlap is given away first, so that two people side by side keep their own faces.
    """
    matched: dict[int, int] = {}
    active = [follower for follower in followers if not follower.closed]
    overlaps = np.array([iou(faces.boxes, follower.last) for follower in active]).reshape(len(active), len(faces))
    while overlaps.size and overlaps.max() >= CONTINUES:
        who, place = np.unravel_index(overlaps.argmax(), overlaps.shape)
        matched[id(active[who])] = int(place)
        overlaps[who, :] = overlaps[:, place] = -1
    taken = set(matched.values())
    return matched | {-1 - place: place for place in range(len(faces)) if place not in taken}


def _face(faces: Faces, place: int) -> Face:
    return Face(faces.boxes[place], faces.landmarks[place], float(faces.scores[place]), FrameStatus.DETECTED)


def _crop(picture: np.ndarray, face: Face, settings: ExtractionSettings) -> np.ndarray:
    if settings.align == "box":
        return crop_by_box(picture, face.box, settings.size)
    return crop_by_landmarks(picture, face.landmarks, settings.size)


def _features(path: Path, follower: _Follower, fps: float, shape: tuple[int, ...]) -> VideoFeatures:
    faces = follower.faces
    return VideoFeatures(
        id=str(path),
        features=np.array(follower.features, np.float16).reshape(len(faces), WIDTH),
        frame_status=np.array([face.status for face in faces], np.uint8),
        score=np.array([face.score for face in faces], np.float32),
        box=np.array([face.box for face in faces], np.float32),
        landmarks=np.array([face.landmarks for face in faces], np.float32),
        fps=fps,
        declared=-1,
        width=shape[1],
        height=shape[0],
        fingerprint="",
        source_sha256="",
        status=OK,
    )
