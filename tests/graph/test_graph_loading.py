"""``graph.load_encoder``: a run's encoder as a plain module, against PyG's layers and ours."""

import json
import shutil

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_add_pool

import graph
from core.io.errors import InputError
from core.training.run_folder import load_encoder_state
from graph.batch import make_batches
from graph.config import GraphConfig
from graph.data import load_dataset
from graph.encoder import GIN
from graph.scoring import represent
from graph.train import main as train_main
from tests.graph.conftest import write_attributes, write_tu_dataset
from tests.graph.test_graph_train import train
from tests.runs import result_of

CPU = torch.device("cpu")


def data_of(dataset):
    """A dataset's graphs as PyG's."""
    return [Data(x=graph.x, edge_index=graph.edge_index) for graph in dataset.graphs]


def ours(run, dataset, hidden, layers=3):
    """The representations of our encoder, which computes equal nodes once."""
    encoder = GIN(dataset.num_features, hidden, layers)
    load_encoder_state(encoder, run, lambda state: {name: value[None] for name, value in state.items()})
    return torch.from_numpy(represent(encoder, make_batches(dataset, 10, [0], CPU, layers))[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on TINY with labels and attributes, its dataset and its data root."""
    root = tmp_path_factory.mktemp("data")
    write_tu_dataset(root)
    write_attributes(root)
    folder = root / "run"
    train(root, folder, "--node-features", "both", "--layers", "2")
    return folder, load_dataset("TINY", root, node_features="both"), root


def test_encoder_equals_ours_and_pyg_s_layers(trained):
    folder, dataset, _ = trained
    encoder = graph.load_encoder(folder)
    assert isinstance(encoder, nn.Module)
    assert not encoder.training
    batch = Batch.from_data_list(data_of(dataset))
    with torch.no_grad():
        found = encoder(batch)
        torch.testing.assert_close(found, ours(folder, dataset, 8, 2), rtol=1e-5, atol=1e-5)
        assert found.shape == (24, encoder.dim) == (24, 16)
        assert torch.equal(encoder(batch.x, batch.edge_index, batch.batch), found)
        sums = GINConv(nn.Identity())  # it would draw the weights of a network again
        x, layers = batch.x, []
        for mlp, norm in zip(encoder.mlps, encoder.norms, strict=True):
            x = norm(mlp(sums(x, batch.edge_index)).relu())
            layers.append(x)
        torch.testing.assert_close(found, global_add_pool(torch.cat(layers, 1), batch.batch))
        for i, data in enumerate(data_of(dataset)[:3]):
            torch.testing.assert_close(encoder(data), found[i : i + 1], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(encoder(data.x, data.edge_index), found[i : i + 1])


def test_encoder_can_be_trained_further(trained):
    encoder = graph.load_encoder(trained[0]).train()
    [data] = data_of(trained[1])[:1]
    encoder(data).square().sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in encoder.parameters())


def test_graphs_without_features_are_coded_as_in_training(tmp_path):
    write_tu_dataset(tmp_path, node_labels=False)
    folder = tmp_path / "run"
    train(tmp_path, folder)
    dataset = load_dataset("TINY", tmp_path)
    encoder = graph.load_encoder(folder)
    bare = [Data(edge_index=item.edge_index, num_nodes=item.num_nodes) for item in dataset.graphs]
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(Batch.from_data_list(bare)), ours(folder, dataset, 8), rtol=1e-5, atol=1e-5
        )
    together = Batch.from_data_list(bare)
    apart = encoder(None, together.edge_index, together.batch)
    torch.testing.assert_close(apart, encoder(together))
    assert encoder(None, bare[0].edge_index).shape == (1, encoder.dim)
    hub = torch.tensor([[0] * 6 + list(range(1, 7)), list(range(1, 7)) + [0] * 6])
    with pytest.raises(ValueError, match="a node of degree 6; the encoder was trained with degrees up to 5"):
        encoder(Data(edge_index=hub, num_nodes=7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 4)}, r"`x` has shape \[2, 4\]; the encoder takes \[nodes, 5\]"),
        ({"x": torch.ones(5)}, r"`x` has shape \[5\]; the encoder takes"),
        ({"x": None}, "`x` is None; the encoder was trained on 5 features a node"),
        (
            {"edge_index": torch.ones(3, 2).long()},
            r"`edge_index` has shape \[3, 2\]; it must be \[2, edges\]",
        ),
    ],
)
def test_other_shapes_are_an_error(trained, change, message):
    data = Data(
        **({"x": torch.ones(2, 5), "edge_index": torch.tensor([[0, 1], [1, 0]])} | change), num_nodes=2
    )
    with pytest.raises(ValueError, match=message):
        graph.load_encoder(trained[0])(data)


def test_edges_alone_need_an_encoder_of_degrees(trained):
    with pytest.raises(ValueError, match="`x` is None; the encoder was trained on 5 features a node"):
        graph.load_encoder(trained[0])(None, torch.tensor([[0, 1], [1, 0]]))


def test_run_of_an_older_version_is_loaded(trained, tmp_path):
    """Its record does not say how features were made, and has no checksum."""
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    record = result_of(folder)
    for name in ("node_features", "checksum", "files"):
        del record[name]
    (folder / "result.json").write_text(json.dumps(record))
    [data] = data_of(trained[1])[:1]
    assert torch.equal(graph.load_encoder(folder)(data), graph.load_encoder(trained[0])(data))


def test_folder_without_a_finished_run_of_graphs_is_an_error(trained, tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        graph.load_encoder(tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    encoder = (folder / "encoder.safetensors").read_bytes()
    (folder / "encoder.safetensors").write_bytes(encoder[:-9] + b"\x01" + encoder[-8:])
    with pytest.raises(InputError, match=r"encoder.safetensors is damaged: its checksum"):
        graph.load_encoder(folder)
    (folder / "encoder.safetensors").write_bytes(encoder[:-1])
    with pytest.raises(InputError, match=r"encoder.safetensors cannot be read"):
        graph.load_encoder(folder)
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match=r"the run is not finished; resume it with `resume`"):
        graph.load_encoder(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"modality": "image"}))
    with pytest.raises(InputError, match="holds a run of modality image; a run of graph is needed"):
        graph.load_encoder(folder)


@pytest.mark.data("TUDataset/MUTAG/raw/MUTAG_graph_labels.txt")
def test_mutag_s_encoder_equals_ours(data_root, tmp_path):
    flags = ["--dataset", "MUTAG", "--epochs", "3", "--device", "cpu", "--output-dir", str(tmp_path)]
    train_main([*flags, "--data-root", str(data_root)])
    dataset = load_dataset("MUTAG", data_root)
    with torch.no_grad():
        found = graph.load_encoder(tmp_path)(Batch.from_data_list(data_of(dataset)))
    expected = ours(tmp_path, dataset, GraphConfig(beta=1.0, tau_plus=0.1).hidden)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_last_graph_of_a_batch_may_have_no_nodes(tiny_root, tmp_path):
    train(tiny_root, tmp_path / "run")
    encoder = graph.load_encoder(tmp_path / "run")
    data = data_of(load_dataset("TINY", tiny_root))[:2]
    empty = Data(x=data[0].x[:0], edge_index=data[0].edge_index[:, :0], num_nodes=0)
    rows = encoder(Batch.from_data_list([*data, empty]))
    assert rows.shape == (3, encoder.dim)
    assert (rows[2] == 0).all()
