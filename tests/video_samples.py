"""Generated footage for the tests of videos and data sets."""
import av
import cv2
import numpy as np


def scene(n=40, height=48, width=64):
    """Frames that tell their own number: a bar moves, the brightness rises, noise keeps packets from being tiny."""
    noise = np.random.default_rng(0).integers(0, 40, (n, height, width, 3), dtype=np.uint8)
    for k, frame in enumerate(noise):
        frame[:, 3 * k % width:3 * k % width + 8] = 200
        frame[:6] = 4 * k + 20
    return noise


def write_video(path, frames, *, codec="libx264", rate=10, gop=8, pixels="yuv420p", faststart=False):
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *frames.shape[1:3], pixels, gop
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def decode_all(path):
    """The slow twin: everything, from the start, without any of our code."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write_folder(folder, frames, *, suffix=".png", first=1, digits=3):
    folder.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{k + first:0{digits}d}{suffix}"), frame[..., ::-1] if frame.ndim == 3 else frame)
    return folder
