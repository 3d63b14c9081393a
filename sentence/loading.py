"""The trained encoder of a run, for use from Python."""

from pathlib import Path

from sentence_transformers import SentenceTransformer

from core.training.runtime import choose_device
from sentence.encoder import TwoEncoders
from sentence.quick_thought import as_sentence_transformer, load_model


def load_encoder(run: str | Path, device: str = "auto", *, download: bool = False) -> SentenceTransformer:
    """The encoder of a run's folder, of a SentenceTransformer's, or of a name at the hub, in eval mode.

    ``encode(texts)`` returns vectors [N, D]; of a bag of words or GRUs D is that of both encoders together.
    ``save_pretrained(path)`` writes a folder that works without the project. No code of the folder is run.

    Args:
        device: auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.
        download: Download a model that is named, unless it is in the hub's cache.

    Raises InputError if there is no such folder, or if it is a run of another modality or an unfinished one.
    """
    model = load_model(str(run), download, choose_device(device))
    if isinstance(model[0], TwoEncoders):
        model = as_sentence_transformer(model[0])
    return model.eval()
