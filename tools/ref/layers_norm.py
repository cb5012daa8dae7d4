"""Normalisation layers, in training and in evaluation."""

import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from fixture import Family, Layer

f = Family("layers_norm")


def norm(name, cls, shape, *args, mode="train", note="", shift=0.3, spread=1.5, **kwargs):
    f.layer(name, Layer(cls, *args, **kwargs), lambda: torch.randn(shape) * spread + shift, mode=mode, note=note)


for mode in ("train", "eval"):
    norm(f"batch_norm2d_{mode}", nn.BatchNorm2d, (2, 5, 4, 7), 5, mode=mode)
    norm(f"batch_norm2d_wide_{mode}", nn.BatchNorm2d, (3, 19, 3, 3), 19, mode=mode)
    norm(f"batch_norm2d_not_affine_{mode}", nn.BatchNorm2d, (2, 3, 5, 3), 3, affine=False, mode=mode)
    norm(f"batch_norm2d_untracked_{mode}", nn.BatchNorm2d, (2, 3, 5, 3), 3, track_running_stats=False, mode=mode,
         note="without running statistics, evaluation too uses those of the batch")
    norm(f"batch_norm2d_bare_{mode}", nn.BatchNorm2d, (2, 3, 4, 3), 3, affine=False, track_running_stats=False, mode=mode)
    norm(f"batch_norm1d_2d_{mode}", nn.BatchNorm1d, (7, 5), 5, mode=mode)
    norm(f"batch_norm1d_3d_{mode}", nn.BatchNorm1d, (3, 5, 7), 5, mode=mode)
    norm(f"instance_norm2d_{mode}", nn.InstanceNorm2d, (2, 3, 5, 7), 3, mode=mode)
    norm(f"instance_norm2d_affine_{mode}", nn.InstanceNorm2d, (2, 5, 4, 3), 5, affine=True, mode=mode)
    norm(f"instance_norm2d_tracked_{mode}", nn.InstanceNorm2d, (2, 3, 5, 4), 3, track_running_stats=True, mode=mode)
    norm(f"instance_norm2d_affine_tracked_{mode}", nn.InstanceNorm2d, (2, 3, 5, 4), 3, affine=True,
         track_running_stats=True, momentum=0.3, mode=mode)
norm("batch_norm2d_momentum_none", nn.BatchNorm2d, (2, 3, 5, 4), 3, momentum=None,
     note="a cumulative average: num_batches_tracked is 3 before, so that the batch counts for a quarter")
norm("batch_norm2d_momentum_eps", nn.BatchNorm2d, (2, 3, 5, 4), 3, eps=1e-3, momentum=0.01)
norm("batch_norm2d_one_image", nn.BatchNorm2d, (1, 4, 3, 5), 4)
norm("batch_norm2d_three_values", nn.BatchNorm2d, (3, 4, 1, 1), 4, note="three values a channel")
norm("batch_norm2d_large_mean", nn.BatchNorm2d, (2, 3, 8, 9), 3, shift=30.0,
     note="a mean of 20 standard deviations: E[x^2] - E[x]^2 in float32 would lose the variance")
norm("batch_norm2d_small_spread", nn.BatchNorm2d, (2, 3, 5, 4), 3, shift=0.0, spread=1e-3, note="eps matters")
norm("batch_norm1d_momentum_none", nn.BatchNorm1d, (6, 4), 4, momentum=None)
norm("batch_norm1d_not_affine", nn.BatchNorm1d, (3, 4, 5), 4, affine=False)
norm("batch_norm1d_untracked_eval", nn.BatchNorm1d, (6, 4), 4, track_running_stats=False, mode="eval")

norm("group_norm", nn.GroupNorm, (2, 6, 4, 5), 3, 6)
norm("group_norm_one_group", nn.GroupNorm, (2, 5, 3, 4), 1, 5)
norm("group_norm_each_channel", nn.GroupNorm, (2, 5, 3, 4), 5, 5)
norm("group_norm_not_affine", nn.GroupNorm, (2, 6, 3, 5), 2, 6, affine=False)
norm("group_norm_2d", nn.GroupNorm, (3, 12), 4, 12)
norm("group_norm_3d_eps", nn.GroupNorm, (2, 6, 7), 2, 6, eps=1e-3)
norm("group_norm_large_mean", nn.GroupNorm, (2, 4, 5, 5), 2, 4, shift=30.0)

norm("layer_norm_last", nn.LayerNorm, (2, 3, 4, 7), 7)
norm("layer_norm_2d", nn.LayerNorm, (5, 11), 11)
norm("layer_norm_chw", nn.LayerNorm, (2, 3, 4, 5), [3, 4, 5])
norm("layer_norm_hw", nn.LayerNorm, (2, 3, 4, 5), [4, 5], eps=1e-3)
norm("layer_norm_not_affine", nn.LayerNorm, (2, 3, 7), 7, elementwise_affine=False)
norm("layer_norm_no_bias", nn.LayerNorm, (2, 3, 7), 7, bias=False)
over_channels = "torchvision's LayerNorm2d: over the channels of an image at each pixel"
norm("layer_norm2d", LayerNorm2d, (2, 6, 3, 5), 6, eps=1e-6, note=over_channels)
norm("layer_norm2d_wide", LayerNorm2d, (1, 19, 3, 4), 19, note=over_channels)

norm("local_response_norm", nn.LocalResponseNorm, (2, 7, 3, 4), 5)
norm("local_response_norm_alexnet", nn.LocalResponseNorm, (1, 9, 3, 4), 5, alpha=1e-4, beta=0.75, k=2.0, spread=20.0)
norm("local_response_norm_strong", nn.LocalResponseNorm, (2, 6, 3, 4), 3, alpha=0.5, beta=0.6, k=0.7)
norm("local_response_norm_even_size", nn.LocalResponseNorm, (1, 6, 3, 4), 4, alpha=0.3, beta=0.75, k=1.0,
     note="an even size looks one channel further back than ahead")
norm("local_response_norm_size_1", nn.LocalResponseNorm, (1, 4, 3, 3), 1, alpha=0.4)
norm("local_response_norm_over_channels", nn.LocalResponseNorm, (1, 3, 3, 4), 7, alpha=0.4)
norm("local_response_norm_3d", nn.LocalResponseNorm, (2, 5, 6), 3, alpha=0.4, beta=0.5)

f.save()
