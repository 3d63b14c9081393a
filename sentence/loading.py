"""The trained encoder of a run, for use from Python."""

from pathlib import Path

from sentence_transformers import SentenceTransformer

from core.io.errors import InputError
from core.training.runtime import choose_device
from sentence.encoder import TwoEncoders
from sentence.quick_thought import as_sentence_transformer, load_model


def load_encoder(run: str | Path, device: str = "auto") -> SentenceTransformer:
    """The encoder of a run's folder, or of a SentenceTransformer's, in eval mode.

    ``encode(texts)`` returns vectors [N, D]; of a bag of words or GRUs D is that of both encoders together.
    ``save_pretrained(path)`` writes a folder that works without the project. No code of the folder is run.

    Args:
        device: auto, cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.

    Raises InputError if there is no such folder, or if it is a run of another modality or an unfinished one.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name that of a run, or of a SentenceTransformer")
    model = load_model(str(folder), download=False, device=choose_device(device))
    if isinstance(model[0], TwoEncoders):
        model = as_sentence_transformer(model[0])
    return model.eval()
