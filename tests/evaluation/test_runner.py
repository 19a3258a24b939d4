"""The loop over frames and models, and its results on disk: nothing is lost, nothing is computed twice."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybriddepth_ros.errors import HybridDepthError, OutputError
from hybriddepth_ros.evaluation.runner import Contender, Failure, ModelResult, evaluate, evenly
from hybriddepth_ros.evaluation.store import ResultStore, Thumbnails
from hybriddepth_ros.evaluation.summary import summarise
from tests.evaluation.conftest import MadeSource, make_frame, off_by


def score_all(
    out: Path,
    source: MadeSource,
    *contenders: Contender,
    pictured: tuple[int, ...] = (),
    failures: list[Failure] | None = None,
) -> list[ModelResult]:
    paired = [(contender, ResultStore(out, contender.label)) for contender in contenders]
    for contender, store in paired:
        store.begin(contender.settings, resume=True)
    told = (failures if failures is not None else []).append
    return evaluate(source, range(source.count), paired, pictured, lambda: None, told)


def test_two_models_are_scored_on_the_same_frames_each_loaded_once(tmp_path: Path) -> None:
    source = MadeSource()
    near, far = score_all(tmp_path, source, off_by(0.9, "near"), off_by(1.2, "far"))
    assert source.loaded == [0, 1, 2, 3]
    assert list(near.frames) == list(far.frames) == [0, 1, 2, 3]
    summaries = summarise([near, far])
    assert [s.means["abs_rel"] for s in summaries] == pytest.approx([0.1, 0.2], rel=1e-4)
    assert [s.label for s in summaries] == ["near", "far"]
    for one, other in zip(*(s.distances for s in summaries), strict=True):
        assert (one.near, one.far) == (other.near, other.far)  # bins can be compared
        assert (one.median_relative, other.median_relative) == pytest.approx((0.1, 0.2), rel=1e-4)
    assert summaries[0].sparsification["rmse"].ause == pytest.approx(0.0, abs=1e-9)


def test_a_bad_frame_is_told_once_per_model_and_passed_over(tmp_path: Path) -> None:
    failures: list[Failure] = []
    source = MadeSource(bad=(1,))
    result, _ = score_all(tmp_path, source, off_by(0.9, "a"), off_by(1.1, "b"), failures=failures)
    assert list(result.frames) == [0, 2, 3]
    assert [(f.label, f.frame, f.reason) for f in failures] == [
        ("a", "f1", "f1: expected an image, found none"),
        ("b", "f1", "f1: expected an image, found none"),
    ]
    assert source.loaded == [0, 1, 2, 3]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    calls: list[str] = []

    def interrupted_at(limit: int) -> Contender:
        good = off_by(1.1)

        def judge(frame: Any) -> Any:
            if len(calls) == limit:
                raise KeyboardInterrupt
            calls.append(frame.name)
            return good.judge(frame)

        return Contender("made", good.settings, judge)

    with pytest.raises(KeyboardInterrupt):
        score_all(tmp_path, MadeSource(), interrupted_at(2))
    (again,) = score_all(tmp_path, MadeSource(), interrupted_at(99))
    assert calls == ["f0", "f1", "f2", "f3"]
    (once,) = score_all(tmp_path / "other", MadeSource(), off_by(1.1))
    for index, frame in once.frames.items():
        assert again.frames[index].score.measures == pytest.approx(frame.score.measures, nan_ok=True)
        assert np.array_equal(again.frames[index].score.sample, frame.score.sample)


def test_a_failed_frame_is_tried_again_and_a_damaged_result_made_again(tmp_path: Path) -> None:
    score_all(tmp_path, MadeSource(bad=(3,)), off_by(1.1))
    (tmp_path / "results" / "made" / "000001.npz").write_bytes(b"PK cut off")
    source = MadeSource()
    (result,) = score_all(tmp_path, source, off_by(1.1))
    assert source.loaded == [1, 3] and len(result.frames) == 4


def test_a_frame_that_is_to_be_shown_is_computed_again_if_its_picture_is_missing(tmp_path: Path) -> None:
    score_all(tmp_path, MadeSource(), off_by(1.1), pictured=(0,))
    source = MadeSource()
    (result,) = score_all(tmp_path, source, off_by(1.1), pictured=(0, 2))
    assert source.loaded == [2]
    shown = result.frames[2].thumbnails
    assert shown is not None and np.array_equal(shown.truth, make_frame().depth_m(), equal_nan=True)
    assert result.frames[1].thumbnails is None


def test_results_of_other_settings_are_refused_in_one_line_or_replaced(tmp_path: Path) -> None:
    score_all(tmp_path, MadeSource(), off_by(1.1))
    with pytest.raises(OutputError, match=r"results of made .*factor: 1.1 there, 1.2 now.*--no-resume"):
        score_all(tmp_path, MadeSource(), off_by(1.2))
    store = ResultStore(tmp_path, "made")
    (tmp_path / "results" / "made" / "notes.txt").write_text("mine")
    store.begin(off_by(1.2).settings, resume=False)
    assert store.load(0, "f0") is None
    assert (tmp_path / "results" / "made" / "notes.txt").read_text() == "mine"


def test_settings_that_cannot_be_read_are_other_settings_and_an_absent_one_is_null(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, "made")
    store.begin({"factor": 1.1}, resume=True)
    store.begin({"factor": 1.1, "zoom": None}, resume=True)
    (store.folder / "settings.json").write_text("{")
    with pytest.raises(OutputError, match=r"factor: null there, 1\.1 now"):
        store.begin({"factor": 1.1}, resume=True)


labels = st.text(st.sampled_from("ab:- /.=+%\\é"), min_size=1, max_size=6).map("m".__add__)


@given(one=labels, other=labels)
@example(one="m:a b", other="m:a-b")
@example(one="m:a", other="m-a")
def test_results_of_two_labels_never_share_a_folder(one: str, other: str) -> None:
    folders = [ResultStore(Path("out"), label).folder for label in (one, other)]
    assert (folders[0] == folders[1]) == (one == other)
    assert all(folder.parent == Path("out/results") for folder in folders)


def test_a_result_of_another_frame_is_none(tmp_path: Path) -> None:
    score_all(tmp_path, MadeSource(), off_by(1.1))
    assert ResultStore(tmp_path, "made").load(0, "f1") is None


def test_pictures_keep_one_pixels_depth_and_shrink() -> None:
    subject, reading = off_by(1.1).judge(make_frame())
    big = [np.kron(v, np.ones((40, 40), np.float32)) for v in (reading.depth, subject.truth.values)]
    wide = Thumbnails.of(
        type(subject)("f", type(subject.truth)(big[1]), big[1] > 0, subject.scene, subject.texture),  # type: ignore[call-arg]
        type(reading)(big[0], big[0]),
    )
    assert max(wide.depth.shape) == 360 and wide.scene.shape[:2] == wide.depth.shape
    known = wide.depth[np.isfinite(wide.depth)]
    assert set(known.tolist()) <= set(reading.depth[np.isfinite(reading.depth)].tolist())


@pytest.mark.parametrize(
    ("count", "at_most", "expected"),
    [(4, 9, [0, 1, 2, 3]), (5, 3, [0, 2, 4]), (10, 1, [0]), (3, 0, []), (0, 5, [])],
)
def test_a_choice_is_even_and_has_both_ends(count: int, at_most: int, expected: list[int]) -> None:
    assert evenly(count, at_most) == expected


FULL_DISK = """
import resource, sys
from pathlib import Path
from hybriddepth_ros.errors import OutputError
from tests.evaluation.test_runner import MadeSource, off_by, score_all
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    score_all(Path(sys.argv[1]), MadeSource(), off_by(1.1), pictured=(2,))
except OutputError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_takes_no_more_is_one_line_and_what_was_computed_stays(tmp_path: Path) -> None:
    """The pictures of the third frame are what the limit refuses, as a full disk would."""
    score_all(tmp_path / "free", MadeSource(), off_by(1.1), pictured=(2,))
    sizes = [(tmp_path / "free" / "results" / "made" / f"00000{i}.npz").stat().st_size for i in range(4)]
    limit = (sizes[1] + sizes[2]) // 2
    assert sizes[1] < limit < sizes[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "full"), str(limit)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "results/made/000002.npz cannot be written" in done.stderr
    folder = tmp_path / "full" / "results" / "made"
    assert sorted(p.name for p in folder.iterdir()) == ["000000.npz", "000001.npz", "settings.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_what_no_error_of_the_users_is_ends_the_run(tmp_path: Path) -> None:
    def judge(frame: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        score_all(tmp_path, MadeSource(), Contender("made", {}, judge))
    assert not issubclass(ZeroDivisionError, HybridDepthError)
