"""The panel: frames of the clip, what is shown of them, the cut of staticness, and buttons for results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import viser
from jaxtyping import UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor

from das3r_ns.runs.staticness_cut import store_cut
from das3r_ns.runtime.failures import sentence_of
from das3r_ns.viewer import results
from das3r_ns.viewer.frames import ClipFrames
from das3r_ns.viewer.frusta import ROOT, ClipViewer, draw_frusta
from das3r_ns.viewer.layers import layers
from das3r_ns.viewer.visitors import covering_fov, look_through, looks_through

OUTPUTS = {
    "render": "rgb",
    "input beside render": "input_beside_render",
    "what was removed": "removed",
    "input": "input",
    "moving in this frame": "dynamic_prob",
    "staticness": "staticness",
    "never seen": "unseen",
    "depth": "depth",
}
"""Names in the panel and of the outputs."""
SHARES = frozenset({"dynamic_prob", "staticness", "unseen", "accumulation"})
"""Outputs between 0 and 1, which the host would stretch to the range of each image."""
PANEL_ORDER = -1.0
"""Above everything that the host puts there."""
CUT_STEP = 0.01
WARM_UP_PX = 32
LEGEND = "Frames in the scene: green cameras are trusted, amber and red ones in doubt, blue ones have no record."


class ClipPanel(ViewerControl):
    """See the module. The host finds it in the pipeline and calls `_setup` with its viewer."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.place = 0
        """The frame that is shown, counted from 0 in the whole clip."""
        self._image: tuple[int, UInt8[np.ndarray, "h w 3"]] | None = None
        self._shown = True
        self._clients: dict[int, viser.ClientHandle] = {}
        """Visitors. Viser's own list is locked while it calls `welcome`."""
        self._prepared = False
        self._waiting: list[Any] = []
        """Of visitors who came before the first image could be rendered."""
        self._lock_of_cut = threading.Lock()
        self._busy = threading.Lock()

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        viewer.__class__ = ClipViewer
        assert isinstance(viewer, ClipViewer)
        viewer.panel = self
        if viewer.trainer is None:
            viewer.pause_train.visible = False  # the host shows it where nothing is trained, too
        self.run = Path(self.pipeline.run_folder or viewer.log_filename.parent)
        self.frames = ClipFrames(self.pipeline)
        self.depth = self.frames.depth()
        self.root = self.viser_server.scene.add_frame(ROOT, show_axes=False)
        self._build(self.viser_server.gui)
        self.viser_server.on_client_connect(self.welcome)
        self.viser_server.on_client_disconnect(self._goodbye)
        self._render_once()
        self.pipeline.model.viewer_outputs = self.outputs
        self._prepared = True
        for notification in self._waiting:
            notification.remove()

    @torch.no_grad()
    def _render_once(self) -> None:
        """Render a small image before anybody looks. The host interrupts a render of a visitor who moves by raising in
        whatever line is under way: in the import of Numba, say, which is then broken for good and the window stays
        empty, or in what a trained model looks up once, which then never gets done."""
        camera = replace(self.frames.camera(0), metadata=None)
        camera.rescale_output_resolution(WARM_UP_PX / int(camera.height))
        model = self.pipeline.model
        was_training = model.training
        model.eval()
        try:
            model.get_outputs_for_camera(camera)
            model.culled_layer(camera.to(model.device))
        finally:
            model.train(was_training)

    # --- The panel itself ---------------------------------------------------------------------------------------------

    def _build(self, gui: Any) -> None:
        model = self.pipeline.model
        with gui.add_folder("Clip", order=PANEL_ORDER):
            self.slider = gui.add_slider(
                "Frame", min=1, max=max(2, len(self.frames)), step=1, initial_value=1, disabled=len(self.frames) < 2,
                hint="Look through this frame's camera. Frames in the scene can be clicked, too.",
            )  # fmt: skip
            self.slider.on_update(lambda event: self._on_frame(event.client))
            self.steps = gui.add_button_group("Go to", ("◀", "▶", "Here"))
            self.steps.on_click(lambda event: self._on_step(event.client))
            self.shown = gui.add_dropdown("Show", tuple(OUTPUTS), initial_value="render")
            self.shown.on_update(lambda _: self._on_show())
            self.cut = gui.add_slider(
                "Cut of staticness", min=0.0, max=1.0, step=CUT_STEP, initial_value=round(model.cull_staticness, 2),
                disabled=model.config.keep_dynamic,
                hint="Gaussians less static than this are neither shown nor exported. Kept with the run: ns-export, "
                "ns-render and das3r export take it from there.",
            )  # fmt: skip
            self.cut.on_update(lambda _: self._on_cut())
            self.reset = gui.add_button("Cut of the method", icon=viser.Icon.ARROW_BACK_UP, color="gray")
            self.reset.on_click(lambda _: self._on_reset())
            self.count = gui.add_markdown("")
            with gui.add_folder("Results", expand_by_default=False):
                for label, make, icon in (
                    ("Static video", results.static_video, viser.Icon.MOVIE),
                    ("PLY", results.splat, viser.Icon.DOWNLOAD),
                    ("Report", results.report, viser.Icon.REPORT),
                ):
                    button = gui.add_button(label, icon=icon)
                    button.on_click(lambda event, label=label, make=make: self._make(event.client, label, make))
                self.result = gui.add_markdown("Written into the run's folder and sent to this browser.")
            gui.add_markdown(LEGEND)
        self._count_gaussians()

    def _on_frame(self, client: viser.ClientHandle | None) -> None:
        place = int(self.slider.value) - 1
        self.place = min(max(place, 0), len(self.frames) - 1)
        if client is not None:
            self.go_to(self.place, client)
        self._rerender()

    def _on_step(self, client: viser.ClientHandle | None) -> None:
        step = {"◀": -1, "▶": 1}.get(self.steps.value, 0)
        place = min(max(self.place + step, 0), len(self.frames) - 1)
        self.choose(place, client)

    def choose(self, place: int, client: viser.ClientHandle | None) -> None:
        """Show a frame, and put the visitor who asked for it at its camera."""
        self.place = place
        self.slider.value = place + 1
        if client is not None:
            self.go_to(place, client)
        self._rerender()

    def _on_show(self) -> None:
        control, output = self.viewer.control_panel, OUTPUTS[self.shown.value]
        if output in control._output_render.options:
            control._normalize.value = output not in SHARES
            control._output_render.value = output
        self._rerender()

    def _on_cut(self) -> None:
        self._store_cut()
        self._rerender()

    def _on_reset(self) -> None:
        self.cut.value = round(self.pipeline.model.config.cull_staticness, 2)

    def _store_cut(self) -> None:
        """Keep the slider's value. Callbacks of a slider that is dragged overtake one another: the last to write reads
        the slider again, so that what is kept is where it was let go."""
        said = ""
        model = self.pipeline.model
        with self._lock_of_cut:
            cut = model.cull_staticness = float(self.cut.value)
            try:
                store_cut(self.run, None if abs(cut - model.config.cull_staticness) < CUT_STEP / 2 else cut)
            except OSError as error:
                said = f"  \n**Not kept with the run:** {sentence_of(error)}"
        self._count_gaussians(said)

    @torch.no_grad()
    def _count_gaussians(self, said: str = "") -> None:
        model = self.pipeline.model
        static = model.gaussian_staticness
        shown = len(static) if model.config.keep_dynamic else int((static >= model.cull_staticness).sum())
        self.count.content = f"{shown:,} of {len(static):,} Gaussians are shown and exported.{said}"

    def _make(self, client: viser.ClientHandle | None, label: str, make: Callable[..., Path]) -> None:
        if not self._busy.acquire(blocking=False):
            self.result.content = "One at a time: the other result is not ready yet."
            return
        try:
            self.result.content = f"{label}: working ..."
            path = make(self.pipeline, self.run, self._train_lock())
            self.result.content = f"{label}: `{path}`"
            if client is not None and path.stat().st_size <= results.MAX_DOWNLOAD_BYTES:
                client.send_file_download(path.name, path.read_bytes())
        except Exception as error:  # of a button: the viewer and the training go on
            self.result.content = f"{label} failed: {sentence_of(error)}"
        finally:
            self._busy.release()

    def _train_lock(self) -> AbstractContextManager[Any]:
        return results.no_lock() if self.viewer.train_lock is None else self.viewer.train_lock

    # --- Frames in the scene ------------------------------------------------------------------------------------------

    def draw_frames(self) -> None:
        """Draw the clip's frames; the host calls this when its scene is set up."""
        places = [int(i) for i in self.viewer._pick_drawn_image_idxs(len(self.frames))]
        handles = draw_frusta(self.viser_server, self.frames, places, self.depth, self.choose)
        train = self.pipeline.datamanager.train_dataset
        # By number in the training set, as the host knows them; those of held-out frames never move.
        index = {place: self.frames.train_index[place] for place in places}
        self.viewer.camera_handles = {i: handles[place] for place, i in index.items() if i is not None}
        self.viewer.original_c2w = {
            i: train.cameras[i].camera_to_worlds.cpu().numpy() for i in self.viewer.camera_handles
        }

    def show_frames(self, shown: bool) -> None:
        """Show or hide the frames in the scene."""
        self._shown = shown
        self._update_frames()

    def _update_frames(self) -> None:
        """Hide the frames while everybody looks through one: they would stand before what is looked at."""
        clients = list(self._clients.values())
        T_world_camera = self.frames.pose(self.place)
        away = not clients or any(not looks_through(client, T_world_camera, self.depth) for client in clients)
        visible = self._shown and away
        if self.root.visible != visible:
            self.root.visible = visible

    # --- Visitors -----------------------------------------------------------------------------------------------------

    def welcome(self, client: viser.ClientHandle) -> None:
        """Let a visitor see the scene from the frame that is shown (at first the clip's first), filling the window."""
        if not self._prepared:
            text = "The first image takes some seconds."
            self._waiting.append(client.add_notification("Preparing", text, loading=True, with_close_button=False))
        self._clients[client.client_id] = client
        self.go_to(self.place, client)
        aspect = client.camera.aspect

        @client.camera.on_update
        def _(_: viser.CameraHandle) -> None:
            nonlocal aspect
            self._update_frames()
            if abs(client.camera.aspect - aspect) > 1e-3:
                aspect = client.camera.aspect
                if looks_through(client, self.frames.pose(self.place), self.depth):
                    client.camera.fov = covering_fov(*self._lens(self.place), aspect)

    def _goodbye(self, client: viser.ClientHandle) -> None:
        self._clients.pop(client.client_id, None)

    def go_to(self, place: int, client: viser.ClientHandle) -> None:
        """Put a visitor's camera at a frame."""
        look_through(client, self.frames.pose(place), *self._lens(place), self.depth)
        self._update_frames()

    def _lens(self, place: int) -> tuple[tuple[int, int], np.ndarray]:
        camera = self.frames.camera(place)
        return (int(camera.height), int(camera.width)), camera.get_intrinsics_matrices()[0].cpu().numpy()

    # --- What is rendered ---------------------------------------------------------------------------------------------

    def outputs(self, camera: Cameras, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the panel adds to a render of the viewer; nothing to one of a frame by evaluation or for a video."""
        if "frame_index" in (camera.metadata or {}):
            return {}
        place = self.place
        if self._image is None or self._image[0] != place:
            self._image = (place, self.frames.image(place))
        frame = self.frames.view(place, self._image[1])
        model, control = self.pipeline.model, self.viewer.control_panel
        wanted = {control.output_render, control.split_output_render if control.split else ""}
        culled = model.culled_layer(camera) if "removed" in wanted else None
        return layers(camera, outputs["rgb"], outputs["depth"], outputs["background"], frame, culled)

    def _rerender(self) -> None:
        self.viewer._trigger_rerender()
