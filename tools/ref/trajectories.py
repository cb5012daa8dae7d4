"""Ten training steps of three networks from weights given by formula, in float64 and in float32."""

import copy

import numpy as np
import torch
import torch.nn.functional as F

import reference_models as ref
from fixture import Family

f = Family("trajectories")
STEPS, BATCH, SAMPLES = 10, 16, 32
SGD = dict(lr=0.01, momentum=0.9)


def sample_indices(name, count):
    """All elements of a small tensor, else 32 by formula (an index may come twice)."""
    if count <= SAMPLES:
        return torch.arange(count)
    return torch.from_numpy((ref.splitmix(f"{name}#sample", SAMPLES) % np.uint64(count)).astype(np.int64))


def floats(net):
    """A copy of the parameters and running statistics by name, in the order of the state dict."""
    return {k: v.detach().clone() for k, v in net.state_dict().items() if v.is_floating_point()}


def train(net, shape, dtype, start, layout=torch.contiguous_format):
    """Losses, the first step's logits and those of an evaluation; the state after the first step and the last."""
    net = copy.deepcopy(net).to(dtype, memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), **SGD)
    losses, states, first = [], [], None
    for step in range(STEPS):
        logits = net(ref.images(start + step, (BATCH, *shape)).to(dtype, memory_format=layout))
        loss = F.cross_entropy(logits, ref.labels(start + step, BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        first = logits.detach() if first is None else first
        if step in (0, STEPS - 1):
            states.append(floats(net))
    net.eval()
    with torch.no_grad():
        final = net(ref.images("eval", (BATCH, *shape)).to(dtype))
    return dict(loss=torch.stack(losses), first_logits=first, eval_logits=final), states


def samples(states):
    """The sampled elements of the states [states, elements]: tensor after tensor."""
    return torch.stack([torch.cat([v.flatten()[sample_indices(k, v.numel())] for k, v in s.items()]) for s in states])


def norm(values):
    return sum(v.double().pow(2).sum().item() for v in values) ** 0.5


def distances(state32, state64, initial, trainable):
    """How far a float32 state lies from float64's: of the parameters' norm, and of how far they have moved."""
    together = norm([state32[k] - state64[k] for k in trainable])
    return dict(of_parameters=together / norm([state64[k] for k in trainable]),
                of_update=together / norm([state64[k] - initial[k] for k in trainable]))


def trajectory(name, net, shape, start):
    ref.fill_by_formula(net)
    initial, trainable = floats(net), [k for k, _ in net.named_parameters()]
    runs32 = ref.in_each_float32(lambda layout: train(net, shape, torch.float32, start, layout))
    out64, states64 = train(net, shape, torch.float64, start)
    t = {**runs32[0][0], **{f"{k}64": v for k, v in out64.items()}, "after64": samples(states64)}
    t["loss"] = torch.stack([out["loss"] for out, _ in runs32])
    apart = [[distances(a, b, initial, trainable) for a, b in zip(states, states64)] for _, states in runs32]
    farthest = [{k: max(run[state][k] for run in apart) for k in apart[0][state]} for state in range(len(states64))]
    for each in farthest:
        print(f"  {name}: float32 is up to {each['of_parameters']:.1e} of the parameters from float64, {each['of_update']:.1e} of the update")
    print(f"  losses {', '.join(f'{v:.3f}' for v in out64['loss'])}; float32 is up to "
          f"{', '.join(f'{v:.1e}' for v in (t['loss'] - out64['loss']).abs().amax(1))} from them")
    f.add(f"{name}_{start}", name, dict(num_classes=10), t, "README.md: Numbers by formula, Trajectories",
          input_shape=[BATCH, *shape], first_step=start, optimizer=dict(name="SGD", **SGD), states_after_steps=[1, STEPS],
          names=list(initial), shapes=[list(v.shape) for v in initial.values()],
          checksums=[ref.bit_checksum(v) for v in initial.values()],
          input_checksums=[ref.bit_checksum(ref.images(s, (BATCH, *shape))) for s in [*range(start, start + STEPS), "eval"]],
          labels=[ref.labels(s, BATCH).tolist() for s in range(start, start + STEPS)], float32_distance=farthest)


# Three runs of each, on batches of their own.
for start in (0, STEPS, 2 * STEPS):
    trajectory("lenet", ref.lenet(), (1, 28, 28), start)
    trajectory("resnet18_cifar", ref.resnet18_cifar(), (3, 32, 32), start)
    trajectory("mobilenet_v2", ref.mobilenet_v2(), (3, 64, 64), start)

f.save()
