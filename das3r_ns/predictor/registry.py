"""Every predictor by name, and what `auto` means: the only file that knows them.

A predictor is a name, its settings (a dataclass derived from `PredictorSettings`, whose docstrings are the help page)
and whatever `PredictorSettings.build` returns. Two come with the package. Another package adds its own without touching
a file of ours, by an entry point in the group `das3r_ns.predictors` whose name is the predictor's and whose object is
the settings class; `ns-train das3r das3r-data --help` then shows them, and `--predictor NAME` takes it.
`docs/example_predictor.py` is a complete example. Importing this module imports settings alone, never a predictor.
"""

from dataclasses import dataclass, field, make_dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.predictor.base import Predictor, PredictorSettings
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.network.settings import NetworkPredictorConfig

ENTRY_POINT_GROUP = "das3r_ns.predictors"

BUILT_IN: dict[str, type[PredictorSettings]] = {
    "geometric": GeometricPredictorConfig,
    "network": NetworkPredictorConfig,
}
"""Name -> settings. `auto` takes the first whose settings ask for it, else the first of all: the geometric one, which
was measured best (docs/benchmarks.md), needs no weights and asks for no licence."""


def _from_other_packages() -> tuple[dict[str, type[PredictorSettings]], list[str]]:
    """Settings that other packages bring, by name, and one line about each that cannot be taken."""
    found: dict[str, type[PredictorSettings]] = {}
    problems = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        where = f"The predictor {entry.name!r} ({entry.value})"
        if entry.name in BUILT_IN or entry.name in found or entry.name == "auto" or not entry.name.isidentifier():
            problems.append(f"{where} is left out: its name is taken or not a Python identifier.")
            continue
        try:
            settings = entry.load()
            if not (isinstance(settings, type) and issubclass(settings, PredictorSettings)):
                raise TypeError("it is not a class derived from das3r_ns.predictor.base.PredictorSettings")
            settings()
        except Exception as error:  # whatever a stranger's import raises: it must not stop anybody's training
            problems.append(f"{where} is left out: {type(error).__name__}: {error}".splitlines()[0])
            continue
        found[entry.name] = settings
    return found, problems


_ADDED, PROBLEMS = _from_other_packages()
"""`PROBLEMS`: said once, when a predictor is chosen."""

PREDICTORS: dict[str, type[PredictorSettings]] = {**BUILT_IN, **_ADDED}


if TYPE_CHECKING:
    PredictorChoice = str
else:
    PredictorChoice = Literal[("auto", *PREDICTORS)]
"""`auto`, or the name of a predictor."""


@dataclass
class _BuiltInOptions(SavedConfig):
    predictor: PredictorChoice = "auto"
    """What finds cameras, depth and moving objects. `auto` takes `geometric`, or `network` where `--network.weights`
    names weights of your own; where the geometric one doubts its result and the network's weights are on this machine,
    a line offers `network`."""
    geometric: GeometricPredictorConfig = field(default_factory=GeometricPredictorConfig)
    """Settings of the geometric predictor."""
    network: NetworkPredictorConfig = field(default_factory=NetworkPredictorConfig)
    """Settings of the network predictor."""


if TYPE_CHECKING:

    @dataclass
    class PredictorOptions(_BuiltInOptions):
        """Which predictor, and the settings of each."""
else:
    PredictorOptions = make_dataclass(
        "PredictorOptions",
        [
            (name, Annotated[settings, tyro.conf.arg(help=settings.__doc__ or name)], field(default_factory=settings))
            for name, settings in _ADDED.items()
        ],
        bases=(_BuiltInOptions,),
        namespace={"__doc__": "Which predictor, and the settings of each.", "__module__": __name__},
    )


def settings_of(options: PredictorOptions, name: str) -> PredictorSettings:
    """The settings of the predictor called `name`."""
    return getattr(options, name)


def resolve(options: PredictorOptions) -> tuple[str, str]:
    """The predictor that the options mean here and now, and why, as half a sentence.

    Raises:
        ValueError: there is no predictor of that name, as when the package that brought it is gone.
    """
    if options.predictor != "auto":
        if options.predictor not in PREDICTORS:
            left_out = f" {' '.join(PROBLEMS)}" if PROBLEMS else ""
            raise ValueError(
                f"--predictor {options.predictor}: there is no such predictor, only {', '.join(PREDICTORS)}. Another "
                f"package may bring it (entry point group {ENTRY_POINT_GROUP}); install that again.{left_out}"
            )
        return options.predictor, "as asked for"
    for name in PREDICTORS:
        if reason := settings_of(options, name).asked_for():
            return name, reason
    return next(iter(PREDICTORS)), "which needs no weights"


def meant_by(options: PredictorOptions) -> tuple[str, ...]:
    """Predictors that the options may have meant when a scene was predicted, the likeliest first: a run of `auto`
    finds its scene again whatever `auto` means today."""
    if options.predictor != "auto":
        return (options.predictor,)
    first = resolve(options)[0]
    return (first, *(name for name in PREDICTORS if name != first))


def resolved(options: PredictorOptions) -> PredictorOptions:
    """The same options with what `auto` means here and now, of predictor and settings, so that it can be recorded."""
    return replace(
        options,
        predictor=resolve(options)[0],
        **{name: settings_of(options, name).resolve_auto() for name in PREDICTORS},
    )


def build_predictor(options: PredictorOptions) -> tuple[Predictor, str]:
    """Build the predictor that the options mean.

    Returns:
        The predictor, and the reason for the choice.

    Raises:
        ValueError: a setting makes no sense, or there is no predictor of that name.
        ImportError, WeightsError: something that was asked for is not installed, or its weights are neither here nor to
            be fetched; the message says how to bring it.
    """
    name, reason = resolve(options)
    settings = settings_of(options, name)
    settings.check()
    return settings.build(), reason


def options_of(options: PredictorOptions) -> dict[str, Any]:
    """The settings of every predictor by name."""
    return {name: settings_of(options, name) for name in PREDICTORS}
