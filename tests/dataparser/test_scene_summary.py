"""What is said of a scene once it is predicted."""

from das3r_ns.dataparser.scene_summary import quality_lines
from das3r_ns.scene import Scene

CLIP = {
    "motion_model": "general",
    "reprojection_error_px": 0.31,
    "explained_share": 0.92,
    "spread_depths": 0.4,
    "path_difference": 0.03,
    "focal_difference": -0.012,
    "doubts": [],
}


def scene_with(provenance: dict) -> Scene:
    scene = Scene.__new__(Scene)  # nothing else of it is looked at
    object.__setattr__(scene, "provenance", provenance)
    return scene


def lines(distrusted=(), **clip) -> list[str]:
    quality = {"clip": {**CLIP, **clip}, "distrusted_frames": list(distrusted)}
    return quality_lines(scene_with({"quality": quality}))


def test_a_second_estimate_is_compared_with_where_there_is_one():
    assert lines()[1] == (
        "Path: spread over 0.4 depths of the scene; other points lead to a path 3% of that away and a focal length "
        "-1.2% off."
    )
    assert lines(path_difference=None)[1] == "Path: spread over 0.4 depths of the scene; no second estimate."


def test_frames_are_counted_from_one_and_at_most_twelve_are_named():
    assert lines([0, 4])[2] == "No doubts. Frames that count less in training: 1, 5."
    assert lines(range(12))[2].endswith("training: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12.")
    assert lines(range(13))[2].endswith(" 12, ....")
    assert lines(doubts=["a", "b"])[2] == "Doubts: a; b; every frame counts in training."


def test_a_predictor_without_a_record_is_silent():
    assert quality_lines(scene_with({})) == []
