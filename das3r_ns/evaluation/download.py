"""`das3r download`: the sets of the paper and the network's weights, fetched from their publishers.

What is fetched lies afterwards as `das3r bench` reads it, under `OUT/SET`. An interrupted download goes on where it
stopped; an archive that was unpacked is not fetched again (its entry in `.das3r-download` says what came from where).
"""

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich import get_console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from das3r_ns.datasets.tum import SEQUENCES as TUM_SEQUENCES
from das3r_ns.evaluation.unpack import unpack
from das3r_ns.files.download import DownloadError, Patience, fetch, sha256_of
from das3r_ns.files.json_files import write_json

RECORDS = ".das3r-download"


@dataclass(frozen=True)
class Archive:
    """One archive of a set; more than one file where the publisher cut it into parts."""

    label: str
    """What `--only` calls it."""
    urls: tuple[str, ...]
    into: str
    """Folder under OUT."""
    by_default: bool = True
    sha256: tuple[str | None, ...] = ()
    """Of each file, where the publisher gives it. The hub announces it with the file."""


@dataclass(frozen=True)
class Publication:
    """A set, and what its publishers ask."""

    homepage: str
    licence: str
    archives: tuple[Archive, ...]


_SINTEL = "http://files.is.tue.mpg.de"
_HUB = "https://huggingface.co"
_POINTODYSSEY = f"{_HUB}/datasets/aharley/pointodyssey/resolve/main"

SETS: dict[str, Publication] = {
    "davis": Publication(
        "https://davischallenge.org",
        "DAVIS: for research; cite Perazzi et al. (CVPR 2016) and Pont-Tuset et al. (2017). The videos belong to their "
        "authors (SOURCES.md in the archive).",
        (
            Archive(
                "2017",
                ("https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",),
                "davis",
            ),
            Archive("2016", ("https://graphics.ethz.ch/Downloads/Data/Davis/DAVIS-data.zip",), "davis-2016", False),
        ),
    ),
    "sintel": Publication(
        "http://sintel.is.tue.mpg.de",
        "MPI Sintel: cite Butler et al. (ECCV 2012) and Wulff et al. (2012). The film is (c) Blender Foundation, "
        "durian.blender.org, CC BY 3.0.",
        (
            Archive("images", (f"{_SINTEL}/sintel/MPI-Sintel-training_images.zip",), "sintel"),
            Archive("flow", (f"{_SINTEL}/sintel/MPI-Sintel-training_extras.zip",), "sintel"),
            Archive("depth", (f"{_SINTEL}/jwulff/sintel/MPI-Sintel-depth-training-20150305.zip",), "sintel"),
        ),
    ),
    "tum-dynamics": Publication(
        "https://cvg.cit.tum.de/data/datasets/rgbd-dataset",
        "TUM RGB-D: CC BY 4.0; cite Sturm et al. (IROS 2012).",
        tuple(
            Archive(
                name.removeprefix("rgbd_dataset_freiburg3_"),
                (f"https://cvg.cit.tum.de/rgbd/dataset/freiburg3/{name}.tgz",),
                "tum-dynamics",
            )
            for name in TUM_SEQUENCES
        ),
    ),
    "pointodyssey": Publication(
        "https://pointodyssey.com",
        "PointOdyssey: CC BY-NC-SA 4.0 by its repository (the hub's card says MIT; keep to the stricter); cite Zheng "
        "et al. (ICCV 2023). train is 134 GB, val 20 GB, test 27 GB, sample 3 GB.",
        (
            Archive("train", tuple(f"{_POINTODYSSEY}/train.tar.gz.part{p}" for p in ("aa", "ab", "ac", "ad")),
                    "pointodyssey"),
            Archive("test", (f"{_POINTODYSSEY}/test.tar.gz",), "pointodyssey"),
            Archive("val", (f"{_POINTODYSSEY}/val.tar.gz",), "pointodyssey", False),
            Archive("sample", (f"{_POINTODYSSEY}/sample.tar.gz",), "pointodyssey", False),
        ),
    ),
}  # fmt: skip

WEIGHTS_FILES = ("config.json", "model.safetensors")


def download(
    what: Annotated[Literal["davis", "sintel", "tum-dynamics", "pointodyssey", "weights"], tyro.conf.Positional],
    out: Path = Path("data"),
    only: tuple[str, ...] = (),
    mirror: str | None = None,
    keep_archives: bool = False,
) -> Path:
    """Fetch a data set, or the published weights of the network, and print its licence.

    Args:
        what: which. Weights go into the Hugging Face hub's cache, where the predictor looks.
        out: folder for data sets; each gets its own folder in it, which `das3r bench` reads.
        only: names of the archives to fetch, where not all usual ones are wanted: davis has 2017 (usual) and 2016;
            sintel images, flow and depth; tum-dynamics sitting_xyz, walking_static and so on; pointodyssey train and
            test (usual), val and sample.
        mirror: a URL under which the files are served by their own names, instead of the publishers' servers. Weights
            then go to OUT/weights, to be given to the predictor as a folder.
        keep_archives: keep the archives after unpacking.

    Returns:
        The folder in which it lies.
    """
    if what == "weights":
        return _download_weights(out, mirror)
    publication = SETS[what]
    archives = _chosen(what, publication, only)
    console = get_console()
    console.print(f"[bold]{publication.licence}[/bold] {publication.homepage}", highlight=False)
    for archive in archives:
        folder = out / archive.into
        record = folder / RECORDS / f"{archive.label}.json"
        if record.is_file():
            console.print(f"{archive.label}: already in {folder}")
            continue
        files = _fetch_archive(archive, folder, publication, mirror)
        console.print(f"{archive.label}: unpacking into {folder}")
        count = unpack(files, folder)
        _write_record(record, archive, files, publication, count)
        if not keep_archives:
            for file in files:
                file.unlink()
    folder = out / archives[0].into
    console.print(f"{what} lies in {folder}. Next: [bold]das3r bench {what} --data {folder}[/bold]", highlight=False)
    return folder


def _chosen(what: str, publication: Publication, only: tuple[str, ...]) -> list[Archive]:
    labels = [archive.label for archive in publication.archives]
    unknown = [name for name in only if name not in labels]
    if unknown:
        raise ValueError(f"{what} has no archive {unknown[0]!r}. --only takes: {', '.join(labels)}.")
    return [a for a in publication.archives if (a.label in only if only else a.by_default)]


def _fetch_archive(archive: Archive, folder: Path, publication: Publication, mirror: str | None) -> list[Path]:
    files = []
    with _progress() as progress:
        for number, url in enumerate(archive.urls):
            name = url.rsplit("/", 1)[1]
            path = folder / RECORDS / name
            task = progress.add_task(name, total=None)
            sha256 = archive.sha256[number] if archive.sha256 else None
            try:
                fetch(
                    f"{mirror.rstrip('/')}/{name}" if mirror else url,
                    path,
                    sha256,
                    PATIENCE,
                    lambda done, total, task=task: progress.update(task, completed=done, total=total),
                )
            except DownloadError as error:
                raise DownloadError(
                    f"{error}\nOr fetch {name} in another way (see {publication.homepage}), put it into {path.parent} "
                    "and run the same command again: what is there is used."
                ) from error
            files.append(path)
    return files


PATIENCE = Patience()


def _download_weights(out: Path, mirror: str | None) -> Path:
    from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS
    from das3r_ns.predictor.network.weights import LICENCE_NOTICE
    from das3r_ns.predictor.network.weights_source import download_weights

    get_console().print(f"[bold]{LICENCE_NOTICE}[/bold]", highlight=False)
    if mirror is None:
        folder = download_weights()
        get_console().print(f"The weights {DEFAULT_WEIGHTS} lie in {folder}; the predictor finds them there.")
        return folder
    folder = out / "weights"
    with _progress() as progress:
        for name in WEIGHTS_FILES:
            task = progress.add_task(name, total=None)
            fetch(
                f"{mirror.rstrip('/')}/{name}",
                folder / name,
                patience=PATIENCE,
                progress=lambda done, total, task=task: progress.update(task, completed=done, total=total),
            )
    get_console().print(f"The weights lie in {folder}: give this folder to the predictor as its weights.")
    return folder


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=get_console(),
    )


def _write_record(record: Path, archive: Archive, files: list[Path], publication: Publication, count: int) -> None:
    content = {
        "files": [
            {"url": url, "bytes": f.stat().st_size, "sha256": sha256_of(f)} for url, f in zip(archive.urls, files)
        ],
        "unpacked_files": count,
        "licence": publication.licence,
        "homepage": publication.homepage,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_json(record, content)
