"""The `das3r` command. Each subcommand is a typed function of its own room, imported when it is called, so that
`das3r --help` is instant."""

import os
import sys
from collections.abc import Callable
from importlib import import_module

COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("das3r_ns.dataparser.predict:predict", "a video or folder of images -> a scene folder"),
    "edit": ("das3r_ns.edit:edit", "see what was taken for moving, and correct it, in the browser"),
    "eval": ("das3r_ns.evaluation.evaluate:evaluate", "one result against ground truth: poses, masks, PSNR"),
    "bench": ("das3r_ns.evaluation.bench:bench", "a whole set of clips by the paper's protocol, one table"),
    "batch": ("das3r_ns.evaluation.batch:batch", "every clip of a folder from video to splat, one table"),
    "download": ("das3r_ns.evaluation.download:download", "data sets and weights, resumable, checksummed"),
    "render-static": (
        "das3r_ns.render.static_video:render_static",
        "the input's own camera path without the moving objects",
    ),
    "export": (
        "das3r_ns.export.command:export",
        "the splat as PLY or SPZ, or the scene for COLMAP, Brush, Postshot, ...",
    ),
    "report": (
        "das3r_ns.report.command:report",
        "one HTML file about a scene or a run, with what is in doubt",
    ),
    "train-flow": ("das3r_ns.predictor.training.flow.train:train_flow", "train the optical-flow network"),
    "train-predictor": ("das3r_ns.predictor.training.loop.train:train_predictor", "train the dynamic predictor"),
    "prepare": ("das3r_ns.predictor.training.data.prepare:prepare", "dynamic masks of a training set"),
    "doctor": ("das3r_ns.doctor:doctor", "what is installed, what this machine can do, what helps"),
    "demo": ("das3r_ns.demo:demo", "from a synthetic clip, or yours, to a measured splat"),
}


def main() -> None:
    """Entry point of the `das3r` command."""
    from das3r_ns.runtime.console import print_anything

    print_anything()
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return
    if arguments[0] in ("-V", "--version"):
        from das3r_ns import __version__

        print(f"das3r_ns {__version__}")
        return
    name = arguments[0]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean `das3r {near[0]}`?" if near else ""
        sys.exit(f"das3r has no command {name!r}.{hint}\n\n{_help()}")
    import tyro

    from das3r_ns.runtime.failures import EXIT_INTERRUPTED, EXIT_NO_READER, TRACEBACK_SWITCH, reader_left, sentence_of
    from das3r_ns.runtime.signals import terminated_in_order

    command = load(name)
    try:
        with terminated_in_order(f"das3r {name}"):
            try:
                tyro.cli(command, prog=f"das3r {name}", args=arguments[1:])
            finally:
                sys.stdout.flush()  # here, where a reader that left (`| head`) can be told from an error
    except KeyboardInterrupt as error:
        print(f"das3r {name}: {sentence_of(error)}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            sys.exit(EXIT_NO_READER)
        if os.environ.get(TRACEBACK_SWITCH):
            raise
        sys.exit(f"das3r {name}: {sentence_of(error)}")


def load(name: str) -> Callable[..., object]:
    """The function behind a subcommand."""
    module, attribute = COMMANDS[name][0].split(":")
    return getattr(import_module(module), attribute)


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: das3r COMMAND [OPTIONS]      (das3r COMMAND --help lists the options)\n\n"
        f"{rows}\n\n"
        "Training, viewing, rendering and export are nerfstudio's own commands:\n"
        "  ns-train das3r --data VIDEO,  ns-viewer,  ns-render,  ns-export,  ns-eval"
    )


if __name__ == "__main__":
    main()
