"""Folders of still frames: order, gaps, damage, sizes, frame rate."""
import cv2
import numpy as np
import pytest
from video_samples import scene, write_folder

from tvad.errors import VideoError
from tvad.video import open_frames, probe


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg"])
@pytest.mark.parametrize("grey", [False, True])
def test_folders_of_images_in_colour_and_grey(tmp_path, suffix, grey):
    source = scene(5, 21, 33)[..., 0] if grey else scene(5, 21, 33)
    frames = open_frames(write_folder(tmp_path / "shots", source, suffix=suffix))
    got = frames.read(0, 5)
    wanted = np.repeat(source[..., None], 3, axis=3) if grey else source
    assert got.dtype == np.uint8 and got.shape == (5, 21, 33, 3)
    if suffix == ".jpg":
        assert abs(got.astype(int) - wanted).mean() < 12
    else:
        np.testing.assert_array_equal(got, wanted)
    assert probe(tmp_path / "shots").kind == "folder" and probe(tmp_path / "shots").codec == suffix[1:]


def test_natural_order_and_stray_files(tmp_path):
    source = scene(12, 8, 8)
    folder = write_folder(tmp_path / "f", source, digits=1)  # 1.png ... 12.png
    (folder / "._3.png").write_bytes(b"a hidden file that some archives carry")
    (folder / "readme.txt").write_text("notes")
    np.testing.assert_array_equal(open_frames(folder).read(0, 12), source)


def test_sixteen_bit_grey_keeps_the_high_byte(tmp_path):
    source = scene(1, 9, 9)[0, ..., 0]
    cv2.imwrite(str(tmp_path / "1.png"), source.astype(np.uint16) * 256 + 77)
    np.testing.assert_array_equal(open_frames(tmp_path).read(0, 1)[0, ..., 1], source)


def test_a_missing_number_is_an_error_or_a_recorded_loss(tmp_path):
    source = scene(10, 8, 8)
    folder = write_folder(tmp_path / "f", source, suffix=".bmp")
    (folder / "004.bmp").unlink()
    (folder / "005.bmp").unlink()
    (folder / "008.bmp").unlink()
    with pytest.raises(VideoError, match=r"f: wanted 10 consecutively numbered frames, got 7; the first missing one "
                                         r"follows 003\.bmp; restore the files, or pass damaged='keep'"):
        open_frames(folder)
    kept = open_frames(folder, damaged="keep")
    assert [(loss.start, loss.stop) for loss in kept.losses] == [(3, 5), (7, 8)]
    assert kept.positions.tolist() == [0, 1, 2, 5, 6, 8, 9]
    np.testing.assert_array_equal(kept.read(0, 7), source[kept.positions])


def test_every_fifth_number_is_no_gap_but_a_hole_in_it_is(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(0, 50, 5):
        cv2.imwrite(str(folder / f"shot_{number:03d}.png"), np.full((4, 4), number, np.uint8))
    assert len(open_frames(folder)) == 10
    (folder / "shot_020.png").unlink()
    with pytest.raises(VideoError, match="wanted 10 consecutively numbered frames, got 9"):
        open_frames(folder)


def test_time_stamps_as_names_are_no_consecutive_numbers(tmp_path):
    for number in (1633, 1640, 1652, 1671, 1699):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 4), number % 250, np.uint8))
    assert open_frames(tmp_path).read(0, 5)[:, 0, 0, 0].tolist() == [n % 250 for n in (1633, 1640, 1652, 1671, 1699)]


def test_two_files_of_one_number(tmp_path):
    folder = write_folder(tmp_path / "f", scene(3, 8, 8))
    write_folder(folder, scene(1, 8, 8), suffix=".bmp", first=2)
    with pytest.raises(VideoError, match=r"002\.\w+: another image of this folder has the same number"):
        open_frames(folder)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_a_truncated_image_is_named_and_can_be_left_out(tmp_path, suffix):
    source = scene(4, 64, 64)
    folder = write_folder(tmp_path / "f", source, suffix=suffix)
    broken = folder / f"003{suffix}"
    broken.write_bytes(broken.read_bytes()[:broken.stat().st_size // 2])
    frames = open_frames(folder)
    assert len(frames.read(0, 2)) == 2
    message = rf"003\{suffix}: not a readable image \(.*\); replace the file, or .*'keep'"
    with pytest.raises(VideoError, match=message):
        frames.read(2, 4)
    kept = open_frames(folder, damaged="keep")
    assert kept.positions.tolist() == [0, 1, 3] and [loss.file for loss in kept.losses] == [str(broken)]


def test_an_empty_folder_and_one_of_broken_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"empty: the folder has no frames \(wanted \.bmp, .*give the folder that hol"):
        open_frames(tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_text("no picture")
    with pytest.raises(VideoError, match="bad: wanted 1 frames, got 0; none of its images can be read"):
        open_frames(tmp_path / "bad", damaged="keep")


def test_frames_of_different_sizes_are_named_or_resized(tmp_path):
    folder = write_folder(tmp_path / "f", scene(3, 20, 30))
    write_folder(folder, scene(1, 24, 30), first=4)
    with pytest.raises(VideoError, match=r"004\.png: frame 3 is 24x30 \(height x width\), wanted 20x30 as the first; "
                                         r"pass size=\(height, width\) to resize all"):
        open_frames(folder).check()
    assert open_frames(folder, size=(10, 15)).read(0, 4).shape == (4, 10, 15, 3)


def test_a_folder_has_no_frame_rate_to_sample_from(tmp_path):
    folder = write_folder(tmp_path / "f", scene(10, 8, 8))
    with pytest.raises(VideoError, match="a folder of images has no frame rate to sample 5 fps from; pass native_fps"):
        open_frames(folder, fps=5)
    assert open_frames(folder, fps=5, native_fps=10).positions.tolist() == [0, 2, 4, 6, 8]
    assert open_frames(folder, native_fps=10).fps == 10


def test_the_fingerprint_follows_the_content(tmp_path):
    folder = write_folder(tmp_path / "f", scene(3, 8, 8))
    before = open_frames(folder).fingerprint
    assert open_frames(folder).fingerprint == before
    write_folder(folder, scene(1, 8, 8)[:, ::-1], first=2)
    assert open_frames(folder).fingerprint != before
