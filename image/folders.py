"""Trees of images as people have them: splits, class folders, or images alone."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from core.io.errors import InputError
from core.io.files import check_regular, is_hidden, visible_files, walk
from image.config import Labels
from image.decoding import EXTENSIONS
from image.skipped import Skipped, counts_of

LabelledFile = tuple[str, int]  # an image's path and the index of its class
# The usual names of the splits, in any case. Of test and val the first is used that has class folders.
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
}


class LabelsError(InputError):
    """Labels cannot be read as they were asked for: ``fault`` says why, ``advice`` what to mend."""

    def __init__(self, fault: str, advice: str) -> None:
        self.fault, self.advice = fault, advice
        super().__init__(f"{fault}; {advice}, or set `labels` none")


class NoImagesError(InputError):
    """A folder has no images."""


class Tree(NamedTuple):
    """The images of a folder, splits together."""

    files: list[str]
    labels: list[str] | None  # the class of each


def read_tree(path: Path, labels: Labels, skipped: Skipped) -> Tree:
    """All images below ``path``, splits together, with their classes if class folders give labels."""
    if why_unlabelled(path, labels) is not None:
        return Tree(images_below(path, skipped), None)
    folders = subfolders(path, skipped)
    splits = [folder for folder in folders if splits_of(folder)]
    parts = [list_class_folders(split, skipped) for split in splits]
    skipped.unused += [folder.name for folder in folders if splits and folder not in splits]
    files = {
        file: classes[label]
        for part, classes in parts or [list_images(path, folders, skipped)]
        for file, label in part
    }
    return Tree(list(files), list(files.values()))


def why_unlabelled(path: Path, labels: Labels) -> str | None:
    """Why the images below ``path`` have no labels; None if its class folders give them.

    With ``labels="auto"`` they do if there are at least two and all images lie in one of them. Of
    PATH/train and PATH/test it is enough that one of them has folders. Empty for ``labels="none"``. Raises
    InputError unless ``path`` is a folder.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; folder:PATH takes any folder with images")
    if labels != "auto":
        return "" if labels == "none" else None
    found = Skipped()
    folders = subfolders(path, found)
    splits = [folder for folder in folders if splits_of(folder)]
    if splits:
        has_classes = any(map(has_folders, splits))
        names = " and ".join(folder.name for folder in splits)
        return None if has_classes else f"there are no class folders in {names}"
    classes = [folder for folder in folders if has_images(folder)]
    if len(classes) < 2:
        return "they need two or more folders, one for each class"
    if found.outside:
        lie = "image lies" if found.outside == 1 else "images lie"
        return f"{found.outside:,} {lie} outside of its class folders"
    return None


def split_folders(path: Path, skipped: Skipped) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """Training files, test files and class names of PATH/{train, test or val}/CLASS/*, or of PATH/CLASS/*.

    Without split folders, every fifth file of each class is a test file. Raises InputError if there are no
    class folders, if one has no images, if the classes of train and test differ, or if a split is missing.
    """
    folders = subfolders(path, skipped)
    if splits := find_splits(path, folders):
        skipped.unused += [folder.name for folder in folders if folder not in splits]
        (train, classes), (test, test_classes) = (list_class_folders(split, skipped) for split in splits)
        if classes != test_classes:
            name = min(set(classes) ^ set(test_classes))
            raise InputError(
                f"{path}: only one of {splits[0].name} and {splits[1].name} has the class {name}"
            )
        return train, test, classes
    files, classes = list_images(path, folders, skipped)
    count: Counter[int] = Counter()
    train, test = [], []
    for file, label in files:
        count[label] += 1
        (test if count[label] % 5 == 0 else train).append((file, label))
    if not test:
        raise LabelsError(
            f"{path} has fewer than 5 images in every class; every fifth is a test image", "add some"
        )
    return train, test, classes


def splits_of(folder: Path) -> list[str]:
    """The split that a folder's name means, if any: ``["train"]`` for Training."""
    return [split for split, names in SPLITS.items() if folder.name.lower() in names]


def find_splits(path: Path, folders: list[Path]) -> tuple[Path, Path] | None:
    """The folders of training and of test images among ``folders`` of ``path``; None if there are none.

    Raises InputError if one of the two is missing, or if there are several.
    """
    found = {split: [folder for folder in folders if split in splits_of(folder)] for split in SPLITS}
    if not any(found.values()):
        return None
    # The one that has class folders, else the one that is there; test before val.
    tested = max(("test", "val"), key=lambda split: (any(map(has_folders, found[split])), bool(found[split])))
    for split in ("train", tested):
        if len(found[split]) > 1:
            names = " and ".join(folder.name for folder in found[split])
            raise InputError(f"{path} has {names}, which both mean {split}; keep one of them")
    if found["train"] and found[tested]:
        return found["train"][0], found[tested][0]
    name = (found["train"] or found[tested])[0].name
    missing = "no test or val folder" if found["train"] else "no train folder"
    raise LabelsError(
        f"{path} has a folder {name}, but {missing}", f"add it, or, if {name} is a class, rename it"
    )


def tiny_imagenet_files(path: Path) -> tuple[list[LabelledFile], list[LabelledFile], list[str]]:
    """``split_folders`` for Tiny ImageNet's own layout, which lists the validation classes in a text file."""
    train, classes = list_class_folders(path / "train", Skipped())
    annotations = path / "val" / "val_annotations.txt"
    try:
        check_regular(annotations)
        lines = [line.split("\t")[:2] for line in annotations.read_text("utf-8").splitlines()]
        images = path / "val" / "images"
        return train, [(str(images / Path(file).name), classes.index(wnid)) for file, wnid in lines], classes
    except (OSError, ValueError) as error:
        raise InputError(f"{annotations} is damaged or names a class that train lacks ({error})") from error


def list_class_folders(folder: Path, skipped: Skipped) -> tuple[list[LabelledFile], list[str]]:
    """All images below each class folder, sorted, and the names of the classes; ``skipped`` counts the rest.

    A file is an image if its extension says so, in any case. Links to folders are followed.
    """
    return list_images(folder, subfolders(folder, skipped), skipped)


def list_images(folder: Path, classes: list[Path], skipped: Skipped) -> tuple[list[LabelledFile], list[str]]:
    if not classes:
        raise LabelsError(f"{folder} contains no class folders", "add them")
    try:
        files = [
            (image, label)
            for label, class_folder in enumerate(classes)
            for image in images_below(class_folder, skipped, "is a class folder without images")
        ]
    except NoImagesError as error:
        raise LabelsError(str(error), "move it elsewhere") from None
    return files, [class_folder.name for class_folder in classes]


def images_below(folder: Path, skipped: Skipped, fault: str = "contains no images") -> list[str]:
    """Every image in the tree, sorted; ``skipped`` counts the rest. Raises NoImagesError if there is none."""
    with reading(folder):
        paths, hidden = visible_files(folder)
    extensions = list(map(extension, paths))
    images = [path for path, kind in zip(paths, extensions, strict=True) if kind in EXTENSIONS]
    others = Counter(kind for kind in extensions if kind not in EXTENSIONS)
    if not images:
        contents = f": its files are {counts_of(others)}" if others else ""
        raise NoImagesError(f"{folder} {fault}{contents}")
    skipped.hidden += hidden
    skipped.extensions += others
    return images


def has_images(folder: Path) -> bool:
    with reading(folder):
        return any(extension(path) in EXTENSIONS and not hidden for path, hidden in walk(folder))


def extension(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()


def has_folders(folder: Path) -> bool:
    return bool(subfolders(folder, Skipped()))


def subfolders(folder: Path, skipped: Skipped) -> list[Path]:
    """The folders in ``folder`` by name; ``skipped`` counts its hidden entries and its files."""
    folders = []
    with reading(folder):
        for entry in sorted(folder.iterdir()):
            if is_hidden(entry.name):
                skipped.hidden += 1
            elif entry.is_dir():
                folders.append(entry)
            elif extension(entry) in EXTENSIONS:
                skipped.outside += 1
            else:
                skipped.extensions[extension(entry)] += 1
    return folders


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Inside, an OSError becomes an InputError that names the folder."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
