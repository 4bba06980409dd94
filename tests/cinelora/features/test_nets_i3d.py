"""I3D against its published layers, count and cost; its two kinds of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from cinelora.core.cli import UserError
from cinelora.core.files import file_sha256
from cinelora.features.nets import NETS, i3d, open_net
from cinelora.metrics.feature_nets import I3D_SCRIPT, is_script

# After each stage, of a clip of 16 frames: arXiv 1705.07750, fig. 3, with the channels of arXiv 1409.4842, table 1
STAGES = {
    "Conv3d_1a_7x7": (64, 8, 112, 112),
    "MaxPool3d_2a_3x3": (64, 8, 56, 56),
    "Conv3d_2b_1x1": (64, 8, 56, 56),
    "Conv3d_2c_3x3": (192, 8, 56, 56),
    "MaxPool3d_3a_3x3": (192, 8, 28, 28),
    "Mixed_3b": (256, 8, 28, 28),
    "Mixed_3c": (480, 8, 28, 28),
    "MaxPool3d_4a_3x3": (480, 4, 14, 14),
    "Mixed_4b": (512, 4, 14, 14),
    "Mixed_4c": (512, 4, 14, 14),
    "Mixed_4d": (512, 4, 14, 14),
    "Mixed_4e": (528, 4, 14, 14),
    "Mixed_4f": (832, 4, 14, 14),
    "MaxPool3d_5a_2x2": (832, 2, 7, 7),
    "Mixed_5b": (832, 2, 7, 7),
    "Mixed_5c": (1024, 2, 7, 7),
}


def _meta() -> i3d.InflatedInception:
    with torch.device("meta"):
        return i3d.InflatedInception().eval()


def _clips(frames: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, frames, 20, 36, 3), dtype=np.uint8)


class _Script(torch.nn.Module):
    """The signature of the published TorchScript file; its answer tells what it was given."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        means = x.mean(dim=(2, 3, 4)) if return_features and not rescale and not resize else x.new_zeros(len(x), 3)
        return torch.cat([means, x.amax(dim=(2, 3, 4)), x.new_zeros(len(x), 394)], dim=1)


def test_count_is_the_published_one() -> None:
    # Open Model Zoo, i3d-rgb-tf: 12.69 million (cut, not rounded); 57 convolutions with norm, and the classifier
    net = _meta()
    assert sum(each.numel() for each in net.parameters()) == 12_697_264
    assert len(net.state_dict()) == 57 * 6 + 2
    names = net.state_dict().keys()
    assert {"Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b1b.bn.running_var", "Mixed_5c.b3b.conv3d.weight"} <= names
    assert net.state_dict()["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)


def test_cost_is_the_published_one() -> None:
    # Open Model Zoo, i3d-rgb-tf: 278.981 GFLOP for 79 frames, norms and pools (not counted here) included
    with FlopCounterMode(display=False) as counter:
        _meta()(torch.zeros(1, 3, 79, 224, 224, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(278.981, rel=0.005)


def test_stages_have_the_published_shapes() -> None:
    net, shapes = _meta(), {}
    for name, stage in net.named_children():
        stage.register_forward_hook(lambda _, __, found, name=name: shapes.update({name: tuple(found.shape[1:])}))
    assert net(torch.zeros(1, 3, 16, 224, 224, device="meta")).shape == (1, 400)
    assert shapes.pop("logits") == (400, 1, 1, 1)
    assert list(shapes.items()) == list(STAGES.items())


def test_branches_are_joined_in_the_order_of_the_file() -> None:
    block = i3d._Mixed(3, (1, 5, 2, 5, 3, 4)).eval().requires_grad_(False)
    for level, unit in enumerate((block.b0, block.b1b, block.b2b, block.b3b), start=1):
        unit.conv3d.weight.zero_()
        unit.bn.bias.fill_(level)
    assert block(torch.ones(1, 3, 2, 2, 2))[0, :, 0, 0, 0].tolist() == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]


def test_the_last_branch_pools_before_it_convolves() -> None:
    block = i3d._Mixed(1, (1, 1, 1, 1, 1, 1)).eval().requires_grad_(False)
    block.b3b.conv3d.weight.fill_(1)
    spike = torch.zeros(1, 1, 3, 5, 5)
    spike[0, 0, 1, 2, 2] = 1
    assert (block(spike)[0, 3] > 0.9).sum() == 3 * 3 * 3


def test_padding_puts_the_odd_zero_last() -> None:
    # size 5, window 3, step 2: three places need 3 + 2 * 2 = 7, so 2 zeros, one each side; size 4 needs 5: one, behind
    line = torch.ones(1, 1, 1, 5, 4)
    padded = i3d.same_padded(line, (1, 3, 3), (1, 2, 2))[0, 0, 0]
    assert padded.shape == (7, 5)
    assert padded[:, 0].tolist() == [0, 1, 1, 1, 1, 1, 0] and padded[3].tolist() == [1, 1, 1, 1, 0]


def test_a_state_dict_and_its_safetensors_load_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = i3d.InflatedInception().state_dict()
    torch.save(state, tmp_path / "i3d_pretrained_400.pt")
    save_file(state, tmp_path / "i3d.safetensors")
    for name in ("i3d_pretrained_400.pt", "i3d.safetensors"):
        loaded = open_net("i3d", tmp_path / name)
        assert loaded.sha256 == {"weights": file_sha256(tmp_path / name)}
        assert all(torch.equal(value, state[key]) for key, value in loaded.net.state_dict().items())


def test_the_logits_are_averaged_over_time_before_any_softmax(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = i3d.InflatedInception().eval().requires_grad_(False)
    got = NETS["i3d"].extract(net, _clips()[:1])
    assert got.shape == (1, 400) and got.dtype == np.float32 and got.min() < 0
    net.logits.conv3d.weight.zero_()  # then the bias alone remains, whatever the clip
    assert np.allclose(NETS["i3d"].extract(net, _clips()[:1]), net.logits.conv3d.bias.numpy(), atol=1e-6)


def _scripted(tmp_path: Path) -> Path:
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(_Script()).save(str(path))
    return path


def test_a_script_is_run_only_when_pinned(tmp_path: Path) -> None:
    path = _scripted(tmp_path)
    assert is_script(path)
    with pytest.raises(UserError, match=f"expected {I3D_SCRIPT.sha256[0]}, found"):
        open_net("i3d", path)
    assert open_net("i3d", path, {"weights": file_sha256(path)}).sha256 == {"weights": file_sha256(path)}


def test_a_script_sees_resized_pixels_from_minus_one_to_one(tmp_path: Path) -> None:
    path = _scripted(tmp_path)
    loaded = open_net("i3d", path, {"weights": file_sha256(path)})
    clips = np.zeros((1, 10, 20, 36, 3), np.uint8)
    clips[..., 0], clips[..., 1] = 255, 51
    got = NETS["i3d"].extract(loaded.net, clips)
    assert got[0, :6].tolist() == pytest.approx([1, -0.6, -1, 1, -0.6, -1])


def test_a_state_dict_is_no_script(tmp_path: Path) -> None:
    torch.save({"code": torch.zeros(1)}, tmp_path / "code.pt")
    assert not is_script(tmp_path / "code.pt")


def test_too_short_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="9 frames: give 10 or more"):
        NETS["i3d"].extract(_meta(), _clips(9))
