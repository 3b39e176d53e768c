"""What is said about a scene when it has been predicted."""

from pathlib import Path

from das3r_ns import geometry
from das3r_ns.scene import DYNAMIC_THRESHOLD, Scene


def summary(scene: Scene, folder: Path) -> str:
    """One line about a scene: how many frames were posed, the lens, how much moves, where it lies."""
    focal, width = scene.K[:, 0, 0].mean().item(), float(scene.image_size[1])
    shortest, longest = scene.K[:, 0, 0].min().item(), scene.K[:, 0, 0].max().item()
    lens = f"{shortest:.0f} to {longest:.0f} px" if longest > 1.001 * shortest else f"{focal:.0f} px"
    bent = "" if scene.lens is None else f", without {scene.lens}"
    known = scene.depth > 0
    moving = float((scene.dynamic_prob > DYNAMIC_THRESHOLD).float().mean())
    return (
        f"{int(scene.pose_known.sum())} of {len(scene)} frames posed, focal length {lens} "
        f"({geometry.field_of_view(focal, width):.0f} degrees across){bent}, {moving:.0%} of the images "
        f"moving, depth for {float(known.float().mean()):.0%}: {folder}"
    )


def quality_lines(scene: Scene) -> list[str]:
    """Three lines about how far the cameras are to be believed; none where the predictor left no record of it."""
    quality = scene.provenance.get("quality")
    if not quality:
        return []
    clip, distrusted = quality["clip"], quality["distrusted_frames"]
    second = "no second estimate"
    if clip["path_difference"] is not None:
        second = (
            f"other points lead to a path {clip['path_difference']:.0%} of that away and a focal length "
            f"{clip['focal_difference']:+.1%} off"
        )
    names = ", ".join(str(i + 1) for i in distrusted[:12]) + (", ..." if len(distrusted) > 12 else "")
    return [
        f"Cameras ({clip['motion_model']}): reprojection error {clip['reprojection_error_px']:.2f} px, "
        f"{clip['explained_share']:.0%} of what was followed explained.",
        f"Path: spread over {clip['spread_depths']:.2g} depths of the scene; {second}.",
        ("Doubts: " + "; ".join(clip["doubts"]) if clip["doubts"] else "No doubts")
        + (f". Frames that count less in training: {names}." if distrusted else "; every frame counts in training."),
    ]
