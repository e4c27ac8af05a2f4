"""The network: shapes, padding, normalisation, masking, and sizes from small to large."""

from __future__ import annotations

import pytest
import torch

from espnet3.systems.asr.model import build_model
from espnet3.systems.asr.model.attention import Rotary, sinusoids
from espnet3.systems.asr.model.dropout import FrameDropout
from espnet3.systems.asr.model.normalisation import GlobalNormalisation
from espnet3.systems.asr.model.spec_augment import SpecAugment
from espnet3.systems.asr.model.subsampling import ConvSubsampling
from espnet3.systems.asr.training_config import (
    FeaturesConfig,
    ModelConfig,
    SpecAugmentConfig,
    SubsamplingConfig,
    TrainingConfig,
)

BINS, TOKENS = 20, 7


def small_config(**model: object) -> TrainingConfig:
    settings = {"num_layers": 2, "dim": 16, "num_heads": 2, "feedforward_dim": 24, "conv_kernel": 5}
    return TrainingConfig(
        features=FeaturesConfig(num_mel_bins=BINS, utterance_mean_removal=True),
        model=ModelConfig(
            **{**settings, "subsampling": SubsamplingConfig(4, 3), **model}  # type: ignore[arg-type]
        ),
    )


@pytest.mark.parametrize("encoder", ["conformer", "transformer"])
@pytest.mark.parametrize("position", ["rotary", "sinusoidal"])
@pytest.mark.parametrize("factor", [4, 6])
def test_what_an_utterance_gets_does_not_depend_on_its_batch(
    encoder: str, position: str, factor: int
) -> None:
    torch.manual_seed(0)
    subsampling = SubsamplingConfig(factor, 3)
    config = small_config(encoder=encoder, position=position, subsampling=subsampling)
    model = build_model(config, TOKENS).eval()
    lengths = torch.tensor([50, 31, 7])
    features = torch.randn(3, 50, BINS)
    log_probs, out_lengths = model(features, lengths)
    assert out_lengths.tolist() == [-(-length // factor) for length in lengths.tolist()]
    assert log_probs.shape == (3, max(out_lengths), TOKENS)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
    for row, length in enumerate(lengths):
        alone, alone_lengths = model(features[row : row + 1, :length], length[None])
        frames = int(alone_lengths[0])
        torch.testing.assert_close(log_probs[row, :frames], alone[0], atol=1e-4, rtol=1e-4)


def test_padding_may_hold_anything() -> None:
    model = build_model(small_config(), TOKENS).eval()
    lengths = torch.tensor([40, 20])
    features = torch.randn(2, 40, BINS)
    other = features.clone()
    other[1, 20:] = 1000.0
    outputs = [model(each, lengths)[0][1, :5] for each in (features, other)]
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("encoder", ["conformer", "transformer"])
def test_every_parameter_learns(encoder: str) -> None:
    model = build_model(small_config(encoder=encoder), TOKENS)
    log_probs, _ = model(torch.randn(2, 40, BINS), torch.tensor([40, 30]))
    (log_probs**2).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_the_fields_usual_size_can_be_built() -> None:
    with torch.device("meta"):
        model = build_model(TrainingConfig(), 5000)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert len(model.encoder.layers) == 12
    assert 70 < millions < 130


def test_rotary_attention_sees_distances_only() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    rotary = Rotary(20, 8, torch.device("cpu"))
    queries, keys = rotary(query.expand(20, 8)), rotary(key.expand(20, 8))
    scores = queries @ keys.T
    for distance in (0, 3):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert not torch.allclose(scores[0, 0], scores[0, 3])


def test_the_encoding_of_position_does_not_drown_the_speech() -> None:
    torch.manual_seed(0)
    encoder = build_model(small_config(position="sinusoidal"), TOKENS).encoder.eval()
    seen: list[torch.Tensor] = []
    encoder.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    hidden = torch.randn(1, 9, 16)
    encoder(hidden, torch.tensor([9]))
    torch.testing.assert_close(seen[0][0], 4.0 * hidden[0] + sinusoids(9, 16, hidden.device))


def test_normalisation_takes_the_utterances_own_mean_then_the_statistics() -> None:
    layer = GlobalNormalisation(2, utterance_mean_removal=True)
    layer.std.copy_(torch.tensor([2.0, 1.0]))
    features = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [99.0, 99.0]]])
    normalised = layer(features, torch.tensor([2]))
    assert normalised.tolist() == [[[-0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]]


def test_spec_augment_masks_within_its_bounds_and_only_while_training() -> None:
    config = SpecAugmentConfig(
        num_freq_masks=1,
        max_freq_mask_bins=4,
        num_time_masks=1,
        max_time_mask_frames=6,
        max_time_mask_fraction=0.2,
    )
    augment = SpecAugment(config)
    torch.manual_seed(0)
    features, lengths = torch.ones(200, 40, BINS), torch.tensor([40] * 100 + [10] * 100)
    masked = augment(features, lengths) == 0
    bins = masked.all(dim=1).sum(dim=1)
    frames = masked.all(dim=2).sum(dim=1)
    assert (bins.min(), bins.max()) == (0, 4)
    assert (frames[:100].min(), frames[:100].max()) == (0, 6)
    assert frames[100:].max() == 2  # a fifth of ten frames
    assert not masked[100:, 10:].all(dim=2).any()
    assert torch.equal(augment.eval()(features, lengths), features)


def test_dropout_shared_over_time_drops_whole_dimensions() -> None:
    torch.manual_seed(0)
    ones = torch.ones(4, 50, 100)
    dropped = FrameDropout(0.5, shared_over_time=True)(ones)
    assert torch.equal(dropped[:, :1].expand_as(dropped), dropped)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    each = FrameDropout(0.5, shared_over_time=False)(ones)
    assert not torch.equal(each[:, :1].expand_as(each), each)


@pytest.mark.parametrize("bins", [20, 40, 80])
def test_subsampling_fits_any_number_of_bins(bins: int) -> None:
    for factor in (4, 6):
        layer = ConvSubsampling(bins, 8, factor=factor, channels=2)
        hidden, lengths = layer(torch.randn(1, 33, bins), torch.tensor([33]))
        assert hidden.shape == (1, -(-33 // factor), 8)
        assert lengths.tolist() == [-(-33 // factor)]
