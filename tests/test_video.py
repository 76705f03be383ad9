"""tvad.video on generated footage: good, damaged, empty, odd-sized; every error's text; slow twins of fast paths."""
import pickle
import re
import sys
import types

import av
import cv2
import numpy as np
import pytest
from video_samples import decode_all, scene, write_video

from tvad.errors import VideoError
from tvad.video import ArrayFrames, Clip, clips, open_frames, probe, read_clip, stitch, windows

CODECS = {"clip.mp4": "libx264", "clip.mkv": "libx264", "clip.ts": "libx264",
          "clip.avi": "mpeg4", "lossless.mkv": "ffv1"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / name, scene(), codec=codec) for name, codec in CODECS.items()}


@pytest.mark.parametrize("name", CODECS)
def test_any_order_of_reads_equals_decoding_from_the_start(good, name):
    truth = decode_all(good[name])
    frames = open_frames(good[name])
    assert len(frames) == len(truth) == 40 and frames.fps == 10 and frames.size == (48, 64) and not frames.losses
    rng = np.random.default_rng(1)
    for start in [0, 8, 16, 33, 5, 31, 0, *rng.integers(0, 36, 6)]:
        stop = min(40, start + int(rng.integers(1, 9)))
        frames._cache.clear()  # so that the decoder itself is asked
        np.testing.assert_array_equal(frames.read(start, stop), truth[start:stop])
    np.testing.assert_array_equal(frames.take([39, 3, 3, 20]), truth[[39, 3, 3, 20]])
    assert frames.read(4, 4).shape == (0, 48, 64, 3)
    frames.check()


def test_probe_counts_without_decoding(good):
    info = probe(good["clip.mp4"])
    assert (info.frames, info.fps, info.height, info.width, info.codec, info.kind) == (40, 10, 48, 64, "h264", "file")


def test_sliding_windows_decode_every_frame_once(good, monkeypatch):
    frames = open_frames(good["clip.mp4"])
    asked, plain = [], frames._decode
    monkeypatch.setattr(frames, "_decode", lambda indices: asked.extend(indices) or plain(indices))
    opened, plain_open = [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(args) or plain_open(*args, **options))
    found = list(clips(frames, length=16, stride=6))
    assert [clip.start for clip in found] == [0, 6, 12, 18, 24] and {len(clip) for clip in found} == {16}
    assert asked == list(range(40)) and len(opened) == 1
    truth = decode_all(good["clip.mp4"])
    for clip in found:
        np.testing.assert_array_equal(clip.frames, truth[clip.start:clip.stop])


def test_kept_frames_are_bounded(good, monkeypatch):
    monkeypatch.setattr("tvad.video.frames.CACHE_BYTES", 10 * 48 * 64 * 3)
    frames = open_frames(good["clip.mp4"])
    truth = decode_all(good["clip.mp4"])
    np.testing.assert_array_equal(frames.read(0, 30), truth[:30])
    assert sorted(frames._cache) == list(range(20, 30))
    np.testing.assert_array_equal(frames.take([3, 25]), truth[[3, 25]])
    assert sorted(frames._cache) == [3, 25]
    np.testing.assert_array_equal(frames.read(20, 40), truth[20:])  # at the end nothing is kept, no file stays open
    assert not frames._cache and frames._container is None


def test_closed_and_pickled_frames_read_again(good):
    frames = open_frames(good["clip.mkv"])
    before = frames.read(10, 14)
    twin = pickle.loads(pickle.dumps(frames))
    frames.close()
    np.testing.assert_array_equal(frames.read(10, 14), before)
    np.testing.assert_array_equal(twin.read(10, 14), before)


@pytest.mark.parametrize(("height", "width", "codec", "pixels"), [(31, 47, "ffv1", "bgr0"), (33, 50, "ffv1", "gray")])
def test_odd_sizes_and_grey_video(tmp_path, height, width, codec, pixels):
    source = scene(6, height, width)
    path = write_video(tmp_path / "odd.mkv", source, codec=codec, pixels=pixels)
    got = open_frames(path).read(0, 6)
    assert got.shape == source.shape
    if pixels == "gray":
        assert (got[..., :1] == got).all() and got.std() > 10
    else:
        np.testing.assert_array_equal(got, source)


def test_a_video_taken_with_a_turned_camera_is_shown_upright(good, tmp_path):
    data = bytearray(good["clip.mp4"].read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12, section 8.3.2, version 0
    data[matrix:matrix + 20] = b"".join(k.to_bytes(4, "big", signed=True) for k in (0, 1 << 16, 0, -1 << 16, 0))
    (tmp_path / "turned.mp4").write_bytes(data)
    frames = open_frames(tmp_path / "turned.mp4")
    assert frames.size == (64, 48) and probe(tmp_path / "turned.mp4").height == 64
    np.testing.assert_array_equal(frames.read(0, 3), np.rot90(decode_all(good["clip.mp4"])[:3], -1, axes=(1, 2)))


def test_sampling_by_frame_rate_takes_the_nearest_frames(good):
    frames = open_frames(good["clip.mp4"], fps=4)
    truth = decode_all(good["clip.mp4"])
    assert len(frames) == 16 and frames.fps == 4
    # ticks every 2.5 frames; a tie goes to the later frame
    assert frames.positions.tolist() == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38]
    np.testing.assert_array_equal(frames.read(2, 9), truth[frames.positions[2:9]])
    assert open_frames(good["clip.mp4"], fps=10).positions.tolist() == list(range(40))
    with pytest.raises(VideoError, match=r"cannot sample at 25 fps, the video has 10; frames would have to be repeat"):
        open_frames(good["clip.mp4"], fps=25)
    assert frames.fingerprint != open_frames(good["clip.mp4"]).fingerprint


def test_size_resizes_every_frame(good):
    frames = open_frames(good["clip.mp4"], size=(24, 32))
    wanted = cv2.resize(decode_all(good["clip.mp4"])[7], (32, 24), interpolation=cv2.INTER_AREA)
    assert frames.size == (24, 32)
    np.testing.assert_array_equal(frames.read(7, 8)[0], wanted)
    assert frames.fingerprint != open_frames(good["clip.mp4"]).fingerprint


def test_read_clip_never_pads(good):
    clip = read_clip(good["clip.mp4"], start=24, frames=16)
    assert isinstance(clip, Clip) and len(clip) == 16 and (clip.start, clip.stop, clip.fps) == (24, 40, 10)
    with pytest.raises(VideoError, match=r"clip\.mp4: wanted 16 frames from frame 25 on, the video has 40; ask for"):
        read_clip(good["clip.mp4"], start=25, frames=16)
    with pytest.raises(VideoError, match=r"wanted frames 38:41, the video has 40"):
        open_frames(good["clip.mp4"]).read(38, 41)
    with pytest.raises(VideoError, match=r"wanted frame -1, the video has 40"):
        open_frames(good["clip.mp4"]).take([3, -1])


# -- damage ------------------------------------------------------------------------------------------------------------

def truncated(path, share):
    cut = path.with_name("cut_" + path.name)
    cut.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    return cut


@pytest.mark.parametrize("name", ["clip.mkv", "lossless.mkv", "clip.avi", "fast.mp4"])
def test_a_truncated_file_names_wanted_and_got_and_its_rest_can_be_kept(tmp_path, good, name):
    path = tmp_path / name
    if name == "fast.mp4":
        write_video(path, scene(), faststart=True)
    else:
        path.write_bytes(good[name].read_bytes())
    truth, cut = decode_all(path), truncated(path, 0.85 if name == "clip.avi" else 0.6)
    # the demuxer corrects the count of a cut AVI itself; the packet that breaks off still gives it away
    promised = r"\d+" if name == "clip.avi" else "40"
    message = rf"cut_{re.escape(name)}: wanted {promised} frames, got \d+; .*damaged='keep'"
    with pytest.raises(VideoError, match=message):
        open_frames(cut)
    kept = open_frames(cut, damaged="keep")
    assert 8 <= len(kept) < 36 and kept.losses[-1].start == len(kept)
    assert kept.losses[-1].cause == "the file ends before"
    assert kept.losses[-1].stop == probe(cut).frames and kept.losses[-1].file == str(cut)
    np.testing.assert_array_equal(kept.read(0, len(kept)), truth[:len(kept)])


def test_an_mp4_cut_before_its_index_is_refused(good):
    with pytest.raises(VideoError, match=r"cut_clip\.mp4: not a readable video \(Invalid data.*\); the file is damag"):
        open_frames(truncated(good["clip.mp4"], 0.6), damaged="keep")


@pytest.mark.parametrize("name", ["lossless.mkv", "clip.mp4"])
def test_flipped_bits_raise_and_keep_gives_sound_frames_only(tmp_path, good, name):
    truth = decode_all(good[name])
    with av.open(str(good[name])) as container:
        packets = [(packet.pos, packet.size, packet.pts) for packet in container.demux(video=0) if packet.size]
    order = np.argsort([pts for *_, pts in packets])
    hit = int(order[19])  # a frame in the middle of the third group of 8
    data = bytearray(good[name].read_bytes())
    position, size, _ = packets[hit]
    for offset in range(position + size // 4, position + size, 3):
        data[offset] ^= 0x5A
    path = tmp_path / name
    path.write_bytes(data)
    message = rf"{name}: wanted 40 frames, got \d+: frame \d+ cannot be decoded, .*'keep'"
    with pytest.raises(VideoError, match=message):
        open_frames(path).check()
    np.testing.assert_array_equal(open_frames(path).read(0, 8), truth[:8])  # the part before is read as ever
    kept = open_frames(path, damaged="keep")
    assert 30 <= len(kept) < 40 and {loss.cause for loss in kept.losses} == {"damaged data"}
    lost = {k for loss in kept.losses for k in range(loss.start, loss.stop)}
    assert 19 in lost and lost == set(range(40)) - set(kept.positions.tolist())
    np.testing.assert_array_equal(kept.read(0, len(kept)), truth[kept.positions])
    kept.close()
    np.testing.assert_array_equal(kept.take([len(kept) - 1, 0]), truth[kept.positions[[-1, 0]]])
    assert kept.times[-1] == pytest.approx(3.9)


def test_files_that_are_no_videos(tmp_path):
    with pytest.raises(VideoError, match=r"none\.mp4: no such file or folder; check the path"):
        open_frames(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: the file is empty \(0 bytes\); copy or record it again"):
        probe(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("This is not a video. " * 50)
    for damaged in ("raise", "keep"):
        with pytest.raises(VideoError, match=r"text\.mp4: not a readable video .* copy it again or convert it"):
            open_frames(tmp_path / "text.mp4", damaged=damaged)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream, sound = container.add_stream("pcm_s16le", rate=8000), np.zeros((1, 800), np.int16)
        frame = av.AudioFrame.from_ndarray(sound, layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match=r"sound\.wav: the file has no video stream"):
        open_frames(tmp_path / "sound.wav")


def test_unknown_options_name_the_choices(good):
    with pytest.raises(VideoError, match=r"unknown decoder 'opencv'; choose one of pyav, decord, torchcodec"):
        open_frames(good["clip.mp4"], decoder="opencv")
    with pytest.raises(VideoError, match=r"damaged='ignore' is unknown; choose one of raise, keep"):
        open_frames(good["clip.mp4"], damaged="ignore")


# -- other decoders ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_a_decoder_that_is_not_installed_is_named(good, monkeypatch, decoder):
    monkeypatch.setitem(sys.modules, decoder, None)
    monkeypatch.delitem(sys.modules, f"{decoder}.decoders", raising=False)
    with pytest.raises(VideoError, match=rf"clip\.mp4: decoder '{decoder}' cannot be imported .*pip install {decoder}, "
                                         "or use decoder='pyav'"):
        open_frames(good["clip.mp4"], decoder=decoder)


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_an_installed_decoder_gives_identical_pixels(good, decoder):
    try:
        frames = open_frames(good["clip.mp4"], decoder=decoder)
    except VideoError as error:
        pytest.skip(str(error))
    difference = frames.take([0, 30, 7]).astype(int) - decode_all(good["clip.mp4"])[[0, 30, 7]]
    assert abs(difference).max() <= 2  # builds of the colour conversion round differently
    with pytest.raises(VideoError, match="damaged='keep' needs decoder='pyav'"):
        open_frames(good["clip.mp4"], decoder=decoder, damaged="keep")


def test_a_decoder_that_finds_another_count_is_an_error(good, monkeypatch):
    class Reader:
        def __init__(self, path, num_threads):
            self.truth = decode_all(path)

        def __len__(self):
            return self.count

        def get_batch(self, indices):
            return types.SimpleNamespace(asnumpy=lambda: self.truth[indices])

    monkeypatch.setitem(sys.modules, "decord", types.SimpleNamespace(VideoReader=Reader))
    Reader.count = 40
    frames = open_frames(good["clip.mp4"], decoder="decord")
    np.testing.assert_array_equal(frames.take([5, 2]), decode_all(good["clip.mp4"])[[5, 2]])
    frames.close()
    Reader.count = 37
    with pytest.raises(VideoError, match=r"wanted 40 frames, got an error from decord at frames 8:9 \(it finds 37 "):
        frames.read(8, 9)


# -- arrays, windows, stitching ----------------------------------------------------------------------------------------

def test_array_frames():
    array = scene(6, 8, 10)
    frames = ArrayFrames(array, 10.0, "demo")
    np.testing.assert_array_equal(frames.read(1, 4), array[1:4])
    assert frames.fingerprint == ArrayFrames(array.copy(), 10.0).fingerprint
    assert frames.fingerprint != ArrayFrames(array[::-1], 10.0).fingerprint
    assert ArrayFrames(array[..., 0], 10.0).read(0, 6).shape == (6, 8, 10, 3)
    np.testing.assert_array_equal(frames.at_rate(5).read(0, 3), array[::2])
    with pytest.raises(VideoError, match="demo: wanted frames 0:7, the video has 6"):
        frames.read(0, 7)
    with pytest.raises(VideoError, match="wanted frame -1"):
        frames.take([-1])
    with pytest.raises(VideoError, match=r"wanted uint8 frames .* got float64 \(6, 8, 10, 3\)"):
        ArrayFrames(array / 255.0, 10.0)
    with pytest.raises(VideoError, match="holds no frames"):
        ArrayFrames(array[:0], 10.0)


def test_a_clip_refuses_other_shapes_and_rates():
    with pytest.raises(VideoError, match=r"a clip needs uint8 RGB frames of shape \(t, h, w, 3\), got float64"):
        Clip(np.zeros((2, 4, 4, 3)), 10.0, 0, "x")
    with pytest.raises(VideoError, match="positive frame rate, got fps=0"):
        Clip(np.zeros((2, 4, 4, 3), np.uint8), 0, 0, "x")


@pytest.mark.parametrize(("length", "stride"), [(16, 8), (16, 16), (5, 1), (7, 3), (1, 1)])
def test_windows_cover_every_frame_with_full_windows(length, stride):
    for n in range(60):
        found = windows(n, length=length, stride=stride)
        assert {k for start, stop in found for k in range(start, stop)} == set(range(n))
        assert all(window.length == min(length, n) for window in found)
        assert len(found) == (0 if n == 0 else 1 + max(0, -(-(n - length) // stride)))


def test_windows_refuse_gaps():
    with pytest.raises(ValueError, match="1 <= stride <= length, got length=4, stride=5"):
        windows(10, length=4, stride=5)


def test_stitch_averages_overlaps_as_the_slow_twin():
    rng = np.random.default_rng(0)
    parts = [(start, rng.random((stop - start, 3, 2), np.float32)) for start, stop in windows(23, length=8, stride=3)]
    slow = np.array([np.mean([values[k - start] for start, values in parts if start <= k < start + 8], axis=0)
                     for k in range(23)])
    got = stitch(iter(parts), 23)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, slow, atol=1e-6)
    assert stitch([(0, np.ones(4))], 4).dtype == np.float64


def test_stitch_never_invents_a_value():
    with pytest.raises(ValueError, match=r"2 of 6 frames have no value, first 2; the windows must cover every frame"):
        stitch([(0, np.ones(2)), (4, np.ones(2))], 6)
    with pytest.raises(ValueError, match="part 4:7 lies outside of the video's 6 frames"):
        stitch([(4, np.ones(3))], 6)
    with pytest.raises(ValueError, match="no parts"):
        stitch([], 6)


def test_clips_of_a_part_and_of_a_short_video():
    frames = ArrayFrames(scene(10, 8, 8), 10.0, "demo")
    assert [(clip.start, len(clip)) for clip in clips(frames, length=4)] == [(0, 4), (4, 4), (6, 4)]
    assert [(clip.start, len(clip)) for clip in clips(frames, length=16)] == [(0, 10)]
    assert [(clip.start, len(clip)) for clip in clips(frames, length=3, start=2, stop=7)] == [(2, 3), (4, 3)]
