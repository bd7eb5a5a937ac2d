"""Assignments of a data set outside of training: whose priors, by which assigner, from whose predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ladle.assigners import Assigner, uses_predictions
from ladle.data.depth import spelled
from ladle.data.loader import Loader, lost_workers_told, make_loader
from ladle.data.sources import DatasetSource, Source, Subset
from ladle.detectors import Detector, DetectorSpec, load_detector, read_spec
from ladle.errors import UserError
from ladle.families import detector_spec, lessons_of, network_info
from ladle.lessons import TeacherJudges
from ladle.limits import Range, verify
from ladle.networks import prior_mismatches
from ladle.recipes.console import say
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch as BatchSize
from ladle.recipes.options import OnDefect, Run, Seed, Workers
from ladle.recipes.options import Side as ImageSide
from ladle.recipes.parts import ASSIGNER, assigner_of, of_family
from ladle.recipes.preflight import MOVED
from ladle.recipes.sources import open_source, remarks
from ladle.teachers import ForeignTeacher, FrozenDetector, MovedTeacher, Teacher, open_teacher, parse_uri
from ladle.types import Assignment, Batch, Predictions, Priors
from ladle.values import text_of

__all__ = ["Assigned", "Context", "Images", "Options", "Side", "Wanted", "names_of", "open_context"]


class Wanted(NamedTuple):
    """What the arguments say of an assignment; None is the detector's own assigner, no teacher, no other detector."""

    assigner: str | Assigner | None
    teacher: str | None
    model: str | None = None


Images = Annotated[int, Range(1, 100_000_000)]


@dataclass(frozen=True)
class Options:
    """Which images of which data are looked at, how, and by whose priors."""

    data: str
    model: str
    split: str
    images: Images | None
    imgsz: ImageSide | None
    batch: BatchSize
    workers: Workers
    device: Device
    seed: Seed
    on_defect: OnDefect = "repair"

    def __post_init__(self) -> None:
        """Raise :class:`UserError` for values outside their limits."""
        verify(self)


@dataclass(frozen=True)
class Side:
    """An assigner and the network whose predictions it is given; None where it looks at none."""

    title: str
    assign: Assigner
    judge: Teacher | None = None


class Assigned(NamedTuple):
    """A batch, the priors of the detector, and the assignment of each side."""

    batch: Batch
    priors: Priors
    plans: tuple[Assignment, ...]


@dataclass(frozen=True)
class Context:
    """The images that are looked at, and the detector whose priors learn.

    ``title`` is what the detector is called, ``remarks`` are lines about it and about the data.
    """

    source: Source
    loader: Loader
    spec: DetectorSpec
    network: FrozenDetector
    device: str
    title: str
    seed: int
    remarks: tuple[str, ...]
    names: dict[int | str, str]
    _grids: dict[tuple[int, ...], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.source.classes

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the detector's levels."""
        return self.spec.strides

    def side(self, wanted: Wanted, against: bool = False) -> Side:
        """The assignment that is wanted; ``against`` says that the flags for it begin with that word.

        Raises :class:`UserError` for an assigner that does not fit the detector, for a model that predicts at other
        priors, and for a network that does not know the classes. A teacher may have other priors, or be no detector of
        Ladle's: its predictions are moved.
        """
        flag = "against-" if against else ""
        spec, network, title = self.spec, self.network, self.title
        if wanted.model is not None:
            spec, detector, title, _ = _opened(wanted.model, self.source, spec.imgsz, self.seed)
            network = self._frozen(f"{flag}model", wanted.model, detector)
        given = wanted.assigner
        if isinstance(given, str):
            given = assigner_of(of_family(given, spec.name, ASSIGNER), flag=f"--{flag}assigner")
        rule: Assigner = lessons_of(spec, given)[0].assigner
        if wanted.teacher is None:
            return Side(f"{text_of(ASSIGNER, rule)}, {title}", rule, network if uses_predictions(rule) else None)
        with _named(f"--{flag}teacher"):
            judge = _teacher(f"{flag}teacher", wanted.teacher, self.spec, self.source).to(self.device)
        moved = "" if isinstance(judge, FrozenDetector) else " (moved)"
        title = f"{text_of(ASSIGNER, rule)}, judged by {_called(wanted.teacher)}{moved}"
        return Side(title, TeacherJudges().assigner(rule), judge)

    def named(self, image: int | str) -> str:
        """What an image is called: by its file, or where it has none by its id."""
        return self.names.get(image, f"image {image}")

    def batches(self, sides: Sequence[Side]) -> Iterator[Assigned]:
        """Assign the objects of every batch by each side."""
        with lost_workers_told():
            for batch in self.loader:
                yield self._assigned(batch.to(self.device), sides)

    @torch.no_grad()
    def _assigned(self, batch: Batch, sides: Sequence[Side]) -> Assigned:
        truth = batch.truth.one_class() if self.spec.regions else batch.truth
        priors = _priors(self.network, self._maps(batch.images), batch.sizes)
        seen: dict[int, Predictions] = {}
        for judge in (side.judge for side in sides):
            if judge is not None and id(judge) not in seen:
                seen[id(judge)] = _predictions(judge, batch, priors, bool(self.spec.regions))
        classes = 1 if self.spec.regions else len(self.classes)
        nothing = Predictions.placeholder(priors, classes, len(batch.images))
        plans = tuple(side.assign(seen.get(id(side.judge), nothing), priors, truth) for side in sides)
        return Assigned(batch, priors, plans)

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of an empty image of this size, from which priors are laid out; made once for each size."""
        shape = tuple(images.shape[-2:])
        if shape not in self._grids:
            self._grids[shape] = _features(self.network, torch.zeros(1, 3, *shape, device=images.device))
        return self._grids[shape]

    def _frozen(self, flag: str, file: str, detector: Detector) -> FrozenDetector:
        return _frozen(flag, file, detector, self.spec, self.classes).to(self.device)


def open_context(options: Options) -> Context:
    """Open the data and the detector, and say what is looked at; raises :class:`UserError` for what cannot be."""
    source, chosen, side = _images(options)
    spec, detector, title, note = _opened(options.model, source, side, options.seed)
    network = _frozen("model", options.model, detector, replace(spec, imgsz=side), source.classes)
    device = find_device(options.device)
    whole = f"{len(chosen)} of the {len(source)} images of {options.split}, drawn with --seed {options.seed} (--images)"
    every = f"all {len(source)} images of {options.split}"
    lines = [whole if len(chosen) < len(source) else every, note]
    lines += [f"{title} works in two stages: this is its proposal network, before it samples"] if spec.regions else []
    loader = make_loader(chosen, options.batch, side, workers=options.workers)
    about = (*remarks(source, options.split, side), *filter(None, lines))
    spec, names = replace(spec, imgsz=side), names_of(source)
    context = Context(chosen, loader, spec, network.to(device), device, title, options.seed, about, names)
    for line in about:
        say(line)
    return context


def _images(options: Options) -> tuple[Source, Source, int]:
    """All images of the split, those of them that are looked at, and their long side."""
    trained = read_spec(Path(options.model)) if _is_file(options.model) else None
    usual = trained if trained is not None else detector_spec(options.model, ("object",))
    side = options.imgsz if options.imgsz is not None else usual.imgsz
    values = spelled(trained.value_range) if trained is not None else None
    source = open_source(options.data, options.split, Run(value_range=values, on_defect=options.on_defect), side)
    if not source.classes:
        raise UserError(f"--data {options.data}: expected classes in {options.split}, found none")
    if options.images is None or options.images >= len(source):
        return source, source, side
    generator = torch.Generator().manual_seed(options.seed)
    drawn = torch.randperm(len(source), generator=generator)[: options.images].sort().values
    return source, Subset(source, drawn.tolist()), side


def _opened(model: str, source: Source, side: int, seed: int) -> tuple[DetectorSpec, Detector, str, str]:
    """A trained detector of a file, or a fresh one by its name: its spec, itself, its title and a line about it."""
    if _is_file(model):
        detector = load_detector(model)
        return detector.spec, detector, _called(model), ""
    spec = detector_spec(model, source.classes, source.category_ids, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = spec.build()
    title = f"untrained {model}"
    return spec, detector, title, f"{model} is untrained, its weights are those of --seed {seed}"


def _is_file(model: str) -> bool:
    return model.endswith(".safetensors") or Path(model).exists()


def _called(file: str) -> str:
    """What a detector is called: weights by the run and the file, or the file alone; others by their text."""
    if parse_uri(file).is_foreign:
        return file
    path = Path(parse_uri(file).path)
    run = path.resolve().parent.parent.name if path.resolve().parent.name == "weights" else ""
    return f"{run}/{path.stem}" if run else path.stem


def names_of(source: Source) -> dict[int | str, str]:
    """The files of images by the ids that batches give them."""
    if not isinstance(source, DatasetSource):
        return {}
    return {image.id: image.file.name for image in source.dataset.images}


# ---------------------------------------------------------------------------------------------- all that asks a network


def _frozen(flag: str, file: str, detector: Detector, base: DetectorSpec, classes: Sequence[str]) -> FrozenDetector:
    """A detector whose predictions are those of the data set's classes, at the priors of ``base``."""
    known = _known_classes(flag, file, detector, base, classes)
    found = prior_mismatches(network_info(base), network_info(detector.spec), base.name, detector.spec.name)
    if found:
        raise UserError(
            f"--{flag} {file} ({detector.spec.name}) has other priors than {base.name}: {'; '.join(found)}; take two "
            "detectors of the same family and kind of backbone"
        )
    return FrozenDetector(detector, known)


def _known_classes(
    flag: str, file: str, detector: Detector, base: DetectorSpec, classes: Sequence[str]
) -> Sequence[str]:
    """The classes that a detector predicts: those of the data, or for a proposal network also its own."""
    lacking = [name for name in classes if name not in detector.spec.classes]
    if lacking and not base.regions:
        raise UserError(
            f"--{flag} {file}: it does not know {', '.join(map(repr, lacking))} of the data, expected a detector "
            f"trained on these classes; it knows {', '.join(detector.spec.classes)}"
        )
    return detector.spec.classes if lacking else classes


@contextmanager
def _named(flag: str) -> Iterator[None]:
    """Name the flag that was given in errors about a teacher, which begin with ``--teacher``."""
    try:
        yield
    except UserError as error:
        usual, about, text = str(error).partition("--teacher ")
        if usual or not about:
            raise
        raise UserError(f"{flag} {text}") from error


def _teacher(
    flag: str, text: str, base: DetectorSpec, source: Source
) -> FrozenDetector | MovedTeacher | ForeignTeacher:
    """A teacher of any origin; its predictions are moved to the priors of ``base`` if they are elsewhere."""
    uri = parse_uri(text)
    if uri.is_recorded:
        raise UserError(f"--{flag} {text}: recorded predictions are for training; give a detector that runs on images")
    if uri.is_foreign:
        say(f"{text}: {MOVED}")
        return open_teacher(text, source.classes, source.category_ids)
    detector = load_detector(uri.path)
    frozen = FrozenDetector(detector, _known_classes(flag, text, detector, base, source.classes))
    if not prior_mismatches(network_info(base), frozen.info):
        return frozen
    say(f"{text}: {MOVED}")
    return MovedTeacher(frozen)


def _features(network: FrozenDetector, images: Tensor) -> tuple[Tensor, ...]:
    """The feature maps of images."""
    return network.detector.extract_features(images)


def _priors(network: FrozenDetector, maps: tuple[Tensor, ...], sizes: Tensor) -> Priors:
    """The priors of a detector's first stage."""
    return network.detector.chain[0].propose(maps, None, None, sizes)


def _predictions(network: Teacher, batch: Batch, priors: Priors, proposes: bool) -> Predictions:
    """What the first stage of a network predicts at priors: of any object where it ``proposes``, else of each class."""
    return network.predict_at(network.observe(batch), priors, class_agnostic=proposes).predictions
