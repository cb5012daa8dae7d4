//! Initial values of torchvision's nets: what each family draws instead of its layers' own defaults.
//!
//! Where torchvision truncates a normal distribution it does so at 20 deviations or more, which never happens: it is taken as
//! normal.

use striate_nn::init::{FanMode, Init, Nonlinearity};
use striate_nn::{Draw, Module};

/// How a parameter starts, by its path and its number of axes; `None` leaves it as its layer does (PyTorch's defaults).
pub(super) type Start = fn(path: &str, rank: usize) -> Option<Init>;

/// Gives the parameters of a net these initial values, a function of (seed, parameter path).
pub(super) fn set<M: Module + ?Sized>(net: &M, start: impl Fn(&str, usize) -> Option<Init>, seed: u64) {
    for (path, cell) in net.named_parameters() {
        if let Some(init) = start(&path, cell.shape().rank()) {
            let (layer, name) = path.rsplit_once('.').unwrap_or(("", &path));
            // The ranks are those that the initialisers take.
            let _ = init.set(&cell, &Draw::at(seed, layer), name);
        }
    }
}

/// He et al. 2015, by fan out: what most nets do with convolutions.
pub(super) const HE: Init = Init::KaimingNormal { mode: FanMode::FanOut, nonlinearity: Nonlinearity::Relu };
pub(super) const ZERO: Init = Init::Constant(0.0);

pub(super) const fn normal(std: f64) -> Init {
    Init::Normal { mean: 0.0, std }
}

/// Zero for biases. Those of batch norms are zero anyway.
fn zero_bias(path: &str, rank: usize) -> Option<Init> {
    (rank == 1 && path.ends_with("bias")).then_some(ZERO)
}

/// As the layers do.
pub(super) fn layers(_: &str, _: usize) -> Option<Init> {
    None
}

/// Convolutions by fan out, nothing else.
pub(super) fn he(_: &str, rank: usize) -> Option<Init> {
    (rank == 4).then_some(HE)
}

/// Convolutions by fan out, linear layers normal with deviation 0.01, biases zero.
pub(super) fn he_and_small_linear(path: &str, rank: usize) -> Option<Init> {
    if rank == 2 { Some(normal(0.01)) } else { he(path, rank).or_else(|| zero_bias(path, rank)) }
}

/// As [`he_and_small_linear`], but convolutions keep their biases.
pub(super) fn regnet(path: &str, rank: usize) -> Option<Init> {
    if rank == 1 && !path.starts_with("fc.") { None } else { he_and_small_linear(path, rank) }
}

/// Convolutions by fan in.
pub(super) fn densenet(path: &str, rank: usize) -> Option<Init> {
    let fan_in = Init::KaimingNormal { mode: FanMode::FanIn, nonlinearity: Nonlinearity::Relu };
    if rank == 4 { Some(fan_in) } else { zero_bias(path, rank) }
}

/// Linear layers uniform within 1 / sqrt(outputs), which is He's rule with gain sqrt(1/3).
pub(super) fn efficientnet(path: &str, rank: usize) -> Option<Init> {
    let slope = 5f64.sqrt();
    let linear = Init::KaimingUniform { mode: FanMode::FanOut, nonlinearity: Nonlinearity::LeakyRelu { slope } };
    if rank == 2 { Some(linear) } else { he_and_small_linear(path, rank) }
}

/// Linear layers uniform by fan out with gain 1.
pub(super) fn mnasnet(path: &str, rank: usize) -> Option<Init> {
    let linear = Init::KaimingUniform { mode: FanMode::FanOut, nonlinearity: Nonlinearity::Sigmoid };
    if rank == 2 { Some(linear) } else { he_and_small_linear(path, rank) }
}

/// Normal with deviation 0.01.
pub(super) fn googlenet(_: &str, rank: usize) -> Option<Init> {
    (rank > 1).then_some(normal(0.01))
}

/// Normal with deviation 0.1, the auxiliary linear layer 0.001.
pub(super) fn inception(path: &str, rank: usize) -> Option<Init> {
    (rank > 1).then_some(normal(if path == "AuxLogits.fc.weight" { 0.001 } else { 0.1 }))
}

/// Convolutions uniform by fan in, the last one normal with deviation 0.01.
pub(super) fn squeezenet(path: &str, rank: usize) -> Option<Init> {
    let fan_in = Init::KaimingUniform { mode: FanMode::FanIn, nonlinearity: Nonlinearity::Relu };
    match (path, rank) {
        ("classifier.1.weight", _) => Some(normal(0.01)),
        (_, 4) => Some(fan_in),
        _ => zero_bias(path, rank),
    }
}

/// Normal with deviation 0.02. The layer scale is the block's own affair.
pub(super) fn convnext(path: &str, rank: usize) -> Option<Init> {
    if path.ends_with("weight") && rank > 1 { Some(normal(0.02)) } else { zero_bias(path, rank) }
}

/// Segmentation nets: the backbone as in its own family, the heads as their layers do.
pub(super) fn resnet_backbone(path: &str, rank: usize) -> Option<Init> {
    if path.starts_with("backbone.") { he(path, rank) } else { None }
}

/// As [`resnet_backbone`].
pub(super) fn mobilenet_backbone(path: &str, rank: usize) -> Option<Init> {
    if path.starts_with("backbone.") { he_and_small_linear(path, rank) } else { None }
}
