"""The scene: what a predictor says about a clip, and the folder that holds it on disk.

The folder is an ordinary nerfstudio dataset (`transforms.json`, images, masks, depth, seed points), which every
other nerfstudio method reads, plus the soft maps that staticness starts from. It is written into a temporary folder
beside its destination and moved into place whole, so an interrupted run leaves no half scene.

In memory, cameras have OpenCV axes; in `transforms.json` they have OpenGL axes, because nerfstudio says so.
"""

from das3r_ns.scene.edit_store import EditStore
from das3r_ns.scene.edits import Edit, EditedFrames, Edits, read_edits
from das3r_ns.scene.lens import RadialLens
from das3r_ns.scene.reading import SceneFiles, image_paths, is_scene_folder, read_frames_of_scene, read_scene
from das3r_ns.scene.types import (
    DYNAMIC_THRESHOLD,
    FORMAT_VERSION,
    PointCloud,
    Scene,
    SceneFolderError,
    frame_name,
)
from das3r_ns.scene.writing import working_name, write_scene, written_whole

__all__ = [
    "DYNAMIC_THRESHOLD",
    "FORMAT_VERSION",
    "Edit",
    "EditStore",
    "EditedFrames",
    "Edits",
    "PointCloud",
    "RadialLens",
    "Scene",
    "SceneFiles",
    "SceneFolderError",
    "frame_name",
    "image_paths",
    "is_scene_folder",
    "read_edits",
    "read_frames_of_scene",
    "read_scene",
    "working_name",
    "write_scene",
    "written_whole",
]
