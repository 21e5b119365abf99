import cv2
import numpy as np
import pytest
from hy_data.contact_sheet import Row, contact_sheet, write_contact_sheet


def levels(sheet_HWC, row, column, cell=(24, 32)):
    top = 4 + row * (18 + cell[0] + 4) + 18
    left = 4 + column * (cell[1] + 4)
    return sheet_HWC[top : top + cell[0], left : left + cell[1]]


def grey(count, height=48, width=64, step=10):
    values = (np.arange(count) * step).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3))


def test_rows_are_clips_and_columns_frames_from_first_to_last():
    sheet = contact_sheet([Row("a", grey(21)), Row("b", grey(5))], columns=5, frame_height=24)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4 + 2 * 46, 4 + 5 * 36, 3)
    for column in range(5):
        assert (levels(sheet, 0, column) == 50 * column).all()
        assert (levels(sheet, 1, column) == 10 * column).all()


def test_a_shorter_clip_leaves_paper():
    sheet = contact_sheet([Row("a", grey(2)), Row("b", grey(1))], columns=3, frame_height=24)
    assert (levels(sheet, 0, 2) == 255).all()
    assert (levels(sheet, 1, 0) == 0).all()
    assert (levels(sheet, 1, 1) == 255).all()


def test_labels_are_written_above_their_rows():
    plain = contact_sheet([Row("", grey(1)), Row("", grey(1))], columns=2, frame_height=24)
    labelled = contact_sheet([Row("", grey(1)), Row("sampled: a café", grey(1))], columns=2, frame_height=24)
    changed = np.argwhere((plain != labelled).any(axis=-1))[:, 0]
    assert len(changed) > 50
    assert 4 + 46 <= changed.min() <= changed.max() < 4 + 46 + 18


def test_clips_of_other_sizes_are_fitted_in():
    sheet = contact_sheet([Row("a", grey(1)), Row("b", grey(1, 100, 30, 0) + np.uint8(77))], columns=1, frame_height=24)
    assert (levels(sheet, 1, 0) == 77).all()


def test_the_file_holds_the_picture(tmp_path):
    rows = [Row("red", np.full((3, 48, 64, 3), (200, 10, 20), np.uint8))]
    write_contact_sheet(tmp_path / "new" / "sheet.png", rows, columns=2, frame_height=24)
    stored_HWC = cv2.cvtColor(cv2.imread(str(tmp_path / "new" / "sheet.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(stored_HWC, contact_sheet(rows, columns=2, frame_height=24))


@pytest.mark.parametrize("rows", [[], [Row("a", np.zeros((0, 8, 8, 3), np.uint8))]])
def test_nothing_to_show_is_refused(rows):
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet(rows)
