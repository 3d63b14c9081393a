"""Whether the folders of a tree of images are classes, and what is in a tree that has none."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from core.io.errors import InputError
from core.io.files import visible_files
from image.config import Labels
from image.decoding import EXTENSIONS
from image.folders import check_folder, extension, list_class_folders, list_images, splits_of, subfolders
from image.skipped import Skipped, counts_of


class Tree(NamedTuple):
    """The images of a folder, splits together."""

    files: list[Path]
    labels: list[str] | None  # the class of each


def why_unlabelled(path: Path, labels: Labels) -> str | None:
    """Why the images below ``path`` have no labels; None if its class folders give them.

    With ``labels="auto"`` they do if there are at least two and all images lie in one of them. Of
    PATH/train and PATH/test it is enough that one of them has folders. Empty for ``labels="none"``.
    """
    if labels != "auto":
        return "" if labels == "none" else None
    found = Skipped()
    folders = subfolders(path, found)
    splits = [folder for folder in folders if splits_of(folder)]
    if splits:
        has_classes = any(subfolders(split, Skipped()) for split in splits)
        names = " and ".join(folder.name for folder in splits)
        return None if has_classes else f"there are no class folders in {names}"
    classes = [folder for folder in folders if images_below(folder, Skipped())]
    if len(classes) < 2:
        return f"{classes[0].name} is its only class folder" if classes else "it has no class folders"
    if found.outside:
        lie = "image lies" if found.outside == 1 else "images lie"
        return f"{found.outside:,} {lie} outside of its class folders; labels folders would leave them out"
    return None


def images_below(path: Path, skipped: Skipped) -> list[Path]:
    """Every image in the tree, sorted; ``skipped`` counts the rest. Raises InputError if that fails."""
    try:
        paths, hidden = visible_files(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    skipped.hidden += hidden
    skipped.extensions += Counter(extension(path) for path in paths if extension(path) not in EXTENSIONS)
    return [path for path in paths if extension(path) in EXTENSIONS]


def unlabelled_images(path: Path, skipped: Skipped) -> list[Path]:
    """``images_below``; raises InputError if there are none."""
    check_folder(path)
    if images := images_below(path, skipped):
        return images
    contents = f": its files are {counts_of(skipped.extensions)}" if skipped.extensions else ""
    raise InputError(f"{path} contains no images{contents}")


def read_tree(path: Path, labels: Labels, skipped: Skipped) -> Tree:
    """All images below ``path``, splits together, with their classes if class folders give labels."""
    check_folder(path)
    if why_unlabelled(path, labels) is not None:
        return Tree(unlabelled_images(path, skipped), None)
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
