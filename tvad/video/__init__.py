"""Reading footage: decoding, frame folders, clips, sliding windows.  No model code."""
from tvad.video.clip import Clip, Window, stitch, windows
from tvad.video.frames import ArrayFrames, Frames, Loss
from tvad.video.read import VideoInfo, open_frames, probe, read_clip
from tvad.video.stream import clips

__all__ = [
    "ArrayFrames", "Clip", "Frames", "Loss", "VideoInfo", "Window",
    "clips", "open_frames", "probe", "read_clip", "stitch", "windows",
]
