"""tvad.datasets: UCSD in both layouts on generated dummies (and the real Ped2 where it is), the user's own videos."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from real_data import ped2_root
from video_samples import scene, write_folder, write_video

from tvad.datasets import Event, Video, data_root, open_dataset
from tvad.datasets.base import hash_of
from tvad.datasets.ucsd import parse_script
from tvad.errors import DatasetError, VideoError
from tvad.video import ArrayFrames

SIZE = (24, 36)
PAGE = r"http://www\.svcl\.ucsd\.edu/projects/anomaly/dataset\.htm"
# per test clip: length, 1-based inclusive ranges as in the script; the second has two, as in Ped1
CLIPS = [(12, ["4:9"]), (10, ["1:3", "7:10"]), (8, ["1:8"])]


def labels_of(length, ranges):
    labels = np.zeros(length, np.uint8)
    for text in ranges:
        start, stop = map(int, text.split(":"))
        labels[start - 1:stop] = 1
    return labels


def picture(k, clip):
    frame = np.full((*SIZE, 3), 40 + 10 * clip, np.uint8)
    frame[:, 2 * k:2 * k + 3] = 220
    return frame


def mask(k, positive):
    found = np.zeros(SIZE, np.uint8)
    if positive:
        found[4:12, 2 * k:2 * k + 6] = 255  # moves 2 pixels a frame: one track
        found[16:20, 30:34] = 255           # stands still: another
    return found


def make_dummy(root, *, layout, name="ucsd_ped2", script="UCSDped2.m", masked=(1, 2, 3)):
    """The real folder layout with small pictures; returns the folder of the set."""
    folder = root / name
    official = layout == "official"
    for split, clips in (("train", [6, 5]), ("test", [length for length, _ in CLIPS])):
        for number, length in enumerate(clips, 1):
            if official:
                frames = folder / split.capitalize() / f"{split.capitalize()}{number:03d}"
                masks, first = frames.with_name(frames.name + "_gt"), 1
            else:
                frames = folder / f"{split}ing" / "frames" / f"{number:02d}"
                masks, first = folder / f"{split}ing" / "masks" / f"{number:02d}", 0
            frames.mkdir(parents=True)
            for k in range(length):
                grey = picture(k, number)[..., 0]
                cv2.imwrite(str(frames / f"{k + first:03d}.{'tif' if official else 'jpg'}"), grey)
            if split == "test" and number in masked:
                masks.mkdir(parents=True)
                for k, positive in enumerate(labels_of(*CLIPS[number - 1])):
                    cv2.imwrite(str(masks / f"{k + first:03d}.{'bmp' if official else 'png'}"), mask(k, positive))
    text = "TestVideoFile = {};\n" + "".join(
        f"TestVideoFile{{end+1}}.gt_frame = [{', '.join(ranges)}];\n" for _, ranges in CLIPS)
    (folder / "Test" / script if official else folder / script).write_text(text)
    if official:
        (folder / "Train" / "Train001" / "._001.tif").write_bytes(b"left behind by another system")
    return folder


@pytest.fixture(scope="module", params=["official", "frames"])
def dummy(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    make_dummy(root, layout=request.param)
    return root


def test_both_layouts_give_the_same_set(dummy):
    dataset = open_dataset("ucsd_ped2", root=dummy, complete=False)
    assert dataset.splits() == ("train", "test")
    train, test = dataset.videos("train"), dataset.videos("test")
    assert [video.id for video in train] == ["train_01", "train_02"] and [len(video) for video in train] == [6, 5]
    assert [video.id for video in test] == ["test_01", "test_02", "test_03"]
    assert {video.id for video in train}.isdisjoint(video.id for video in test)
    for video, (length, ranges) in zip(test, CLIPS, strict=True):
        np.testing.assert_array_equal(video.labels, labels_of(length, ranges))
        wanted = np.stack([mask(k, positive) for k, positive in enumerate(video.labels)]) // 255
        np.testing.assert_array_equal(video.masks(0, length), wanted)
        np.testing.assert_array_equal(video.masks(3, 6), wanted[3:6])
        assert video.frames.size == SIZE and video.frames.fps == 10 and video.scene == "ucsd_ped2"
        spans = [(event.start + 1, event.stop) for event in video.events]
        assert spans == [tuple(map(int, text.split(":"))) for text in ranges]
    assert abs(test[0].frames.read(5, 6)[0].astype(int) - picture(5, 1)).mean() < 12
    assert not train[0].labels.any() and not train[0].masks(0, 6).any() and len(train[0].tracks) == 0
    assert dataset.videos("test") is test
    # independent of the layout and of the folder
    assert dataset.split_hash("test") == hash_of([["test_01", 12], ["test_02", 10], ["test_03", 8]])
    assert dataset.split_hash("train") != dataset.split_hash("test")


def test_tracks_come_from_linked_components(dummy):
    video = open_dataset("ucsd_ped2", root=dummy, complete=False).videos("test")[0]
    tracks = video.tracks
    assert len(tracks) == 12 and len(set(tracks.track.tolist())) == 2
    assert sorted(set(tracks.frame.tolist())) == [*range(3, 9)]
    moving = tracks.box[tracks.track == tracks.track[np.argmin(tracks.box[:, 1])]]
    np.testing.assert_array_equal(moving, [[2 * k, 4, 2 * k + 5, 11] for k in range(3, 9)])


def test_ped1_has_masks_for_some_clips_only(tmp_path):
    make_dummy(tmp_path, layout="official", name="UCSDped1", script="UCSDped1.m", masked=(2,))
    videos = open_dataset("ucsd_ped1", root=tmp_path, complete=False).videos("test")
    assert [video.masks is None for video in videos] == [True, False, True]
    assert videos[0].tracks is None and len(videos[1].tracks) > 0
    np.testing.assert_array_equal(videos[0].labels, labels_of(*CLIPS[0]))


def test_the_script_reads_several_ranges_and_single_frames(tmp_path):
    path = tmp_path / "labels.m"
    path.write_text("T = {};\n% T{end+1}.gt_frame = [1:2];\nT{end+1}.gt_frame = [60:152];\n"
                    "T{end+1}.gt_frame = [5:90, 140:200];\nT{end+1}.gt_frame=[7 , 9:9];\n"
                    "T{end+1}.gt_frame = [1:3 8:9];")
    assert parse_script(path) == [[(59, 152)], [(4, 90), (139, 200)], [(6, 7), (8, 9)], [(0, 3), (7, 9)]]
    path.write_text("T{end+1}.gt_frame = [9:3];")
    with pytest.raises(DatasetError, match=rf"labels\.m: cannot read the range '9:3' of clip 1; fetch .* {PAGE}"):
        parse_script(path)


def test_masks_that_contradict_the_script_name_the_clip(tmp_path):
    folder = make_dummy(tmp_path, layout="frames")
    cv2.imwrite(str(folder / "testing" / "masks" / "02" / "004.png"), mask(4, True))
    videos = open_dataset("ucsd_ped2", root=tmp_path, complete=False).videos("test")
    assert videos[0].labels.sum() == 6
    with pytest.raises(DatasetError, match=r"UCSDped2\.m: clip test_02: its pixel masks contradict it in 1 of 10 frames"
                                           r", first in frame 5 .*on_conflict='script'"):
        videos[1].labels  # noqa: B018
    trusting = open_dataset("ucsd_ped2", root=tmp_path, complete=False, on_conflict="script").videos("test")
    np.testing.assert_array_equal(trusting[1].labels, labels_of(*CLIPS[1]))


def test_an_incomplete_set_says_what_is_missing(tmp_path):
    with pytest.raises(DatasetError, match=rf"ucsd_ped2: not found; wanted .*ucsd_ped2 with Train/ and Test/ .*{PAGE}, "
                                           "or set TVAD_DATA"):
        open_dataset("ucsd_ped2", root=tmp_path)
    folder = make_dummy(tmp_path, layout="official")
    with pytest.raises(DatasetError, match=r"wanted 12 test clips with 2010 frames in all, got 3 with 30; the set"):
        open_dataset("ucsd_ped2", root=tmp_path).videos("test")
    lost = folder / "Test" / "Test003_gt" / "008.bmp"
    lost.unlink()
    with pytest.raises(DatasetError, match=r"Test003_gt: wanted 8 masks for clip test_03, got 7; fetch the set again"):
        open_dataset("ucsd_ped2", root=tmp_path, complete=False).videos("test")
    for k in (7, 8):
        (folder / "Test" / "Test003" / f"00{k}.tif").unlink()
    with pytest.raises(DatasetError, match=r"UCSDped2\.m: it labels frame 8 of clip test_03, which has 6 in .*Test003"):
        open_dataset("ucsd_ped2", root=tmp_path, complete=False).videos("test")
    (folder / "Test" / "Test001" / "005.tif").unlink()
    with pytest.raises(VideoError, match=r"Test001: wanted 12 consecutively numbered frames, got 11; .* 004\.tif"):
        open_dataset("ucsd_ped2", root=tmp_path, complete=False).videos("test")
    (folder / "Test" / "Test002").rename(folder / "Test" / "Test009")
    with pytest.raises(DatasetError, match=r"Test: clip 2 is missing before Test003"):
        open_dataset("ucsd_ped2", root=tmp_path, complete=False).videos("test")
    (folder / "Test" / "UCSDped2.m").unlink()
    (folder / "Test" / "Test009").rename(folder / "Test" / "Test002")
    with pytest.raises(DatasetError, match=r"UCSDped2\.m: the script with the frame labels is missing; fetch it from"):
        open_dataset("ucsd_ped2", root=tmp_path, complete=False).videos("test")


def test_names_splits_protocols_and_options_are_checked(dummy):
    with pytest.raises(DatasetError, match="unknown data set 'ped2'; choose one of simcampus, ucsd_ped2, ucsd_p"):
        open_dataset("ped2")
    dataset = open_dataset("ucsd_ped2", root=dummy, complete=False)
    with pytest.raises(DatasetError, match="ucsd_ped2: unknown split 'val' of protocol 'standard'; choose one of tr"):
        dataset.videos("val")
    with pytest.raises(DatasetError, match="ucsd_ped2: unknown protocol 'open-set'; it has one, 'standard'"):
        open_dataset("ucsd_ped2", root=dummy, protocol="open-set")
    with pytest.raises(DatasetError, match=r"ucsd_ped2: .*unexpected keyword argument 'complet'.*; see tvad\.datasets"):
        open_dataset("ucsd_ped2", root=dummy, complet=False)


def test_the_root_is_given_or_from_the_environment_or_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("TVAD_DATA", str(tmp_path / "elsewhere"))
    assert data_root() == tmp_path / "elsewhere" and data_root(tmp_path) == tmp_path
    monkeypatch.delenv("TVAD_DATA")
    assert data_root() == Path(__file__).resolve().parents[1] / "data"


def test_real_ped2_totals_and_masks_equal_the_script():
    dataset = open_dataset("ucsd_ped2", root=ped2_root())
    test = dataset.videos("test")
    assert len(test) == 12 and sum(len(video) for video in test) == 2010
    assert sum(int(video.labels.sum()) for video in test) == 1648  # reading labels compares them with the masks
    for video in test:
        np.testing.assert_array_equal(video.masks(0, len(video)).any(axis=(1, 2)), video.labels.astype(bool))
        assert set(video.tracks.frame.tolist()) == set(np.flatnonzero(video.labels).tolist())
    assert [k for k, video in enumerate(test, 1) if video.labels.all()] == [8, 9, 10, 11]
    assert len(dataset.videos("train")) == 16 and sum(len(video) for video in dataset.videos("train")) == 2550
    assert test[0].frames.size == (240, 360)


# -- what is common ----------------------------------------------------------------------------------------------------

def test_lazy_fields_are_made_once_when_read():
    made = []

    def labels():
        made.append("labels")
        return np.ones(3, np.uint8)

    video = Video("a", "demo", ArrayFrames(np.zeros((3, 4, 4, 3), np.uint8), 10.0), labels=labels,
                  events=lambda: (Event("car", 0, 3),))
    assert not made and "a" in repr(video) and not made
    assert video.labels.sum() == 3 and video.labels.sum() == 3 and made == ["labels"]
    assert video.events[0].kind == "car" and video.text == {} and video.tracks is None and video.masks is None
    with pytest.raises(AttributeError):
        video.id = "b"
    plain = Video("a", "demo", video.frames)
    assert plain.labels is None and plain.events == () and plain.text is not video.text


# -- the user's own ----------------------------------------------------------------------------------------------------

def test_custom_takes_files_folders_and_folders_of_folders(tmp_path):
    write_video(tmp_path / "cam10.mkv", scene(5, 32, 32), codec="ffv1")
    write_video(tmp_path / "cam9.mp4", scene(6, 32, 32))
    write_folder(tmp_path / "yard" / "monday", scene(4, 20, 20))
    (tmp_path / "notes.txt").write_text("not a video")
    dataset = open_dataset("custom", root=tmp_path)
    videos = dataset.videos("all")
    assert [(video.id, len(video)) for video in videos] == [("cam9.mp4", 6), ("cam10.mkv", 5), ("yard/monday", 4)]
    assert videos[0].labels is None and videos[0].masks is None and videos[0].events == ()
    for part in ("cam9.mp4", "yard/monday"):
        assert [video.id for video in open_dataset("custom", root=tmp_path / part).videos("all")] == [Path(part).name]
    small = open_dataset("custom", root=tmp_path, size=(16, 16)).videos("all")
    assert {video.frames.size for video in small} == {(16, 16)}


def test_custom_names_what_it_does_not_find(tmp_path):
    with pytest.raises(DatasetError, match="custom: no video given; pass root="):
        open_dataset("custom")
    with pytest.raises(DatasetError, match="nowhere: no such file or folder"):
        open_dataset("custom", root=tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no videos and no images inside \(looked for .*\.mp4 .*give the folder"):
        open_dataset("custom", root=tmp_path)
    (tmp_path / "bad.mp4").write_text("text")
    with pytest.raises(VideoError, match=r"bad\.mp4: not a readable video"):
        open_dataset("custom", root=tmp_path).videos("all")


def test_every_data_set_that_phase_1_takes_has_a_loader_and_labels():
    from tvad.datasets import DATASETS
    from tvad.params import DATASETS as TAKEN

    assert set(TAKEN) == set(DATASETS) - {"custom"}  # footage of the user's has no labels to train or measure on
