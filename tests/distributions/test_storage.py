"""A flow that was saved and loaded is the same flow; anything else is refused."""

import math

import pytest
import safetensors.torch
import torch
from torch import nn

import snflow
from snflow.errors import CheckedConstructor, CheckpointError, ConfigError
from snflow.testing.cases import CATALOGUE


def saved(flow, folder):
    snflow.save(flow, folder / "flow.safetensors")
    return folder / "flow.safetensors"


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_layer_comes_back(name, tmp_path):
    case = CATALOGUE[name]
    layer, x, context = case.layer(), case.data(3), case.context(3)
    flow = snflow.Flow(layer, snflow.StandardNormal(layer.latent_shape(case.event_shape))).double()
    path = saved(flow, tmp_path)
    loaded = snflow.load(path)
    assert repr(loaded) == repr(flow)
    assert not loaded.training
    for old, new in zip(flow.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(old, new)
    torch.manual_seed(1)
    wanted = flow.eval().log_prob(x, context)
    torch.manual_seed(1)
    assert torch.equal(loaded.log_prob(x, context), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_preprocessing_precision_and_frozen_parameters_come_back(tmp_path, dtype):
    x = (100 + 5 * torch.randn(50, 3)).to(dtype)
    flow = snflow.with_base(snflow.standardized(snflow.flows.realnvp(3, width=4).to(dtype), x), "diagonal_normal")
    flow.bijection[1].requires_grad_(False)
    loaded = snflow.load(saved(flow.eval(), tmp_path))
    assert loaded.log_prob(x).dtype == dtype
    assert torch.equal(loaded.log_prob(x), flow.log_prob(x))
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in flow.parameters()]


def test_integers_come_back(tmp_path):
    flow = snflow.dequantized(snflow.flows.dense((1, 4, 4)), 17).eval()
    loaded = snflow.load(saved(flow, tmp_path))
    assert loaded.sample(2).dtype == torch.uint8


def test_a_shared_layer_is_still_shared(tmp_path):
    layer = snflow.ActNorm(2, vectors=True)
    flow = snflow.Flow(snflow.Chain([layer, snflow.Permutation.reversed(2), layer]), snflow.StandardNormal(2))
    loaded = snflow.load(saved(flow, tmp_path))
    assert loaded.bijection[0] is loaded.bijection[2]


def test_training_goes_on_after_loading(tmp_path):
    loaded = snflow.load(saved(snflow.flows.dense(3), tmp_path)).train()
    (-loaded.log_prob(torch.randn(5, 3))).mean().backward()
    assert all(p.grad is not None for p in loaded.parameters() if p.requires_grad)


def test_loading_draws_no_random_numbers(tmp_path):
    path = saved(snflow.flows.maf(2, width=4), tmp_path)
    before = torch.get_rng_state()
    snflow.load(path)
    assert torch.equal(torch.get_rng_state(), before)


class Own(nn.Module, metaclass=CheckedConstructor):
    def __init__(self, features, scale=math.inf):
        super().__init__()
        self.linear, self.scale = nn.Linear(features, features), scale

    def forward(self, x):
        return self.linear(x)


class Unknown(nn.Linear):
    pass


def pair(net):
    return snflow.Flow(
        snflow.SelfNormalizing(net, nn.Sequential(nn.Linear(2, 2), nn.SiLU()), 2), snflow.StandardNormal(2)
    )


def test_own_networks_are_loaded_only_where_they_are_named(tmp_path):
    path = saved(pair(Own(2)), tmp_path)
    with pytest.raises(ConfigError, match=r"got .*test_storage:Own; pass classes=\[Own\] if you trust the file"):
        snflow.load(path)
    assert snflow.load(path, classes=[Own]).bijection.forward_net.scale == math.inf


def test_networks_of_unknown_arguments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"flow, Flow, SelfNormalizing, Unknown.*metaclass"):
        snflow.save(pair(Unknown(2, 2)), tmp_path / "flow")
    with pytest.raises(ConfigError, match="save: expected a Flow, got Chain"):
        snflow.save(snflow.Chain([]), tmp_path / "flow")
    assert list(tmp_path.iterdir()) == []


def test_a_flow_that_was_changed_after_construction_is_refused(tmp_path):
    flow = snflow.flows.realnvp(2, width=4)
    flow.bijection.layers.append(snflow.LeakyReLU())
    with pytest.raises(ConfigError, match="one that was changed afterwards"):
        snflow.save(flow, tmp_path / "flow")


def test_every_flipped_byte_and_every_truncation_is_found(tmp_path):
    path = saved(snflow.flows.planar(2, layers=1), tmp_path)
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        with pytest.raises(CheckpointError):
            snflow.load(path)
        path.write_bytes(content[:position])
        with pytest.raises(CheckpointError):
            snflow.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        snflow.load(path)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="format 'unknown'"):
        snflow.load(path)


def test_an_existing_file_is_intact_if_the_new_one_cannot_be_written(tmp_path):
    path = saved(snflow.flows.planar(2, layers=1), tmp_path)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        snflow.save(pair(Unknown(2, 2)), path)
    assert path.read_bytes() == before
    with pytest.raises(CheckpointError, match="expected a writable file, got no such file"):
        snflow.save(snflow.flows.planar(2, layers=1), tmp_path / "absent" / "flow")
