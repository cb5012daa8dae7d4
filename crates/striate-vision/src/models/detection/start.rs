//! Initial values of detectors: torchvision's, and our own's.

use crate::models::start::{HE, Start, ZERO, he, he_and_small_linear, normal};
use striate_nn::init::{FanMode, Init, Nonlinearity};

/// How a pyramid's convolutions start: He's uniform rule for a linear layer.
const PYRAMID: Init =
    Init::KaimingUniform { mode: FanMode::FanIn, nonlinearity: Nonlinearity::LeakyRelu { slope: 1.0 } };

/// Weights of convolutions by this, biases zero.
fn convs(weight: Init, path: &str, rank: usize) -> Option<Init> {
    match rank {
        4 => Some(weight),
        1 if path.ends_with("bias") => Some(ZERO),
        _ => None,
    }
}

/// The logit of the probability 0.01, with which every class of every anchor starts (Lin et al. 2017, section 4.1).
fn prior() -> Init {
    Init::Constant(-99f64.ln())
}

/// VGG as the classifier, all behind it by Glorot's rule.
pub(super) const SSD: Start = |path, rank| {
    let of_vgg = path.starts_with("backbone.features.")
        || path.starts_with("backbone.extra.0.") && !path.starts_with("backbone.extra.0.7.");
    convs(if of_vgg { HE } else { Init::XavierUniform { gain: 1.0 } }, path, rank)
};

/// All normal with deviation 0.03.
pub(super) const SSDLITE: Start = |path, rank| convs(normal(0.03), path, rank);

/// ResNet and pyramid by their rules, the heads normal with deviation 0.01.
pub(super) const ONE_STAGE: Start = |path, rank| match path {
    "head.classification_head.cls_logits.bias" => Some(prior()),
    _ if path.starts_with("head.") => convs(normal(0.01), path, rank),
    _ => backbone(path, rank),
};

/// The backbone by its rules, the first stage normal with deviation 0.01, convolutions of the others by fan out; linear layers as
/// they are.
pub(super) const TWO_STAGES: Start = |path, rank| {
    if path.starts_with("rpn.") {
        convs(normal(0.01), path, rank)
    } else if path.starts_with("roi_heads.mask_head.") {
        convs(HE, path, rank)
    } else {
        backbone(path, rank)
    }
};

/// As [`TWO_STAGES`] on a MobileNet.
pub(super) const TWO_STAGES_MOBILE: Start = |path, rank| {
    if path.starts_with("backbone.body.") { he_and_small_linear(path, rank) } else { TWO_STAGES(path, rank) }
};

/// By fan out, the last convolutions of both heads normal with deviation 0.01, every class at the prior.
pub(super) const STRIATE_DET: Start = |path, rank| match path {
    "head.classes.values.bias" => Some(prior()),
    "head.classes.values.weight" | "head.sides.values.weight" => Some(normal(0.01)),
    _ => convs(HE, path, rank),
};

/// A ResNet with a pyramid.
fn backbone(path: &str, rank: usize) -> Option<Init> {
    if path.starts_with("backbone.fpn.") { convs(PYRAMID, path, rank) } else { he(path, rank) }
}
