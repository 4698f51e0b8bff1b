"""The same stages in PyTorch and kornia, as bench_image.py compares them; plain, with the libraries' own functions."""

import kornia.filters
import torch
import torch.nn.functional as F

LUMA = torch.tensor([0.2126, 0.7152, 0.0722])[None, :, None, None]


def stencil(weight, picture):
    """A 5 x 5 stencil, the picture mirrored at its edge."""
    return F.conv2d(F.pad(picture, (2, 2, 2, 2), mode="reflect"), weight)


def guided(smoothing, picture):
    """The guided filter of radius 4 with the luma as guide, of one plane with itself.

    kornia takes a number for the smoothing, not a tensor.
    """
    guide = (LUMA * picture).sum(1, keepdim=True) if picture.shape[1] == 3 else picture
    return kornia.filters.guided_blur(guide, picture, 9, smoothing)


def tone(rises, picture):
    """A curve through 16 equally spaced knots: the segment by rounding down, its ends looked up."""
    steps = torch.softmax(rises, 0)
    knots = torch.cat([torch.zeros(1), torch.cumsum(steps, 0)])
    x = picture * steps.numel()
    segment = x.detach().floor().long().clamp(0, steps.numel() - 1)
    return knots[segment] + steps[segment] * (x - segment)


def grid(strength, picture, cell: int = 16, depth: int = 8):
    """A bilateral grid: cells summed by `index_add`, read by trilinear `grid_sample`."""
    _, _, height, width = picture.shape
    rows, columns = height // cell, width // cell
    place = ((LUMA * picture).sum(1)[0] * (depth - 2) + 0.5).clamp(0, depth - 1)
    low = place.detach().floor().clamp(max=depth - 2)
    y, x = torch.arange(height) // cell, torch.arange(width) // cell
    at = (low.long() * rows + y[:, None]) * columns + x[None]
    values = torch.cat([torch.ones_like(picture[:, :1]), picture], 1)[0].reshape(4, -1)
    sums = torch.zeros(4, depth * rows * columns)
    for up, share in ((0, 1 - (place - low)), (1, place - low)):
        sums = sums.index_add(1, (at + up * rows * columns).reshape(-1), values * share.reshape(-1))
    kernel = torch.tensor([0.25, 0.5, 0.25])[None, None]
    blurred = sums.reshape(4, depth, rows, columns)
    for axis in (1, 2, 3):
        line = blurred.movedim(axis, -1)
        blurred = F.conv1d(line.reshape(-1, 1, line.shape[-1]), kernel, padding=1).reshape(line.shape).movedim(-1, axis)
    across, down = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (width, height))
    where = torch.stack(
        [across[None].expand(height, -1), down[:, None].expand(-1, width), (place + 0.5) / depth * 2 - 1], -1
    )
    sampled = F.grid_sample(blurred[None], where[None, None], align_corners=False, padding_mode="border")[0, :, 0]
    return picture + strength * (sampled[1:] / (sampled[:1] + 1e-6) - picture)


STAGES = {
    "stencil 5x5 1->3": (stencil, torch.randn(3, 1, 5, 5), 1),
    "guided filter r4": (guided, 1e-3, 3),
    "guided filter r4, one plane": (guided, 1e-3, 1),
    "tone curve": (tone, torch.zeros(15), 3),
    "bilateral grid 16 px, 8 deep": (grid, torch.tensor(0.5), 3),
}


def rival(name: str, picture, cotangent):
    """A function that runs the stage forward and back once, on arrays (c, h, w)."""
    stage, parameters, channels = STAGES[name]
    x = torch.tensor(picture[None, :channels]).requires_grad_()
    output_cotangent = torch.tensor(cotangent[None])
    leaves = [x]
    if isinstance(parameters, torch.Tensor):
        parameters = parameters.clone().requires_grad_()
        leaves.append(parameters)
    return lambda: torch.autograd.grad(stage(parameters, x), leaves, output_cotangent)
