//! Inception v3 (Szegedy et al. 2015), with torchvision's parameter names. Its input is normalised as GoogLeNet's.

use super::parts::{Branches, Net, basic_conv, flatten};
use super::registry::ModelSpec;
use super::start;
use striate_nn::{AdaptiveAvgPool2d, AvgPool2d, Dropout, Linear, MaxPool2d};

pub(super) static MODELS: &[ModelSpec] = &[ModelSpec::new(
    "inception_v3",
    "factorised inception modules, an auxiliary head in training",
    start::inception,
    |i, k| inception_v3(i[0], k),
)
.side(299)
.aux(&["AuxLogits."])];

/// A convolution in a row: name, output channels, kernel, stride, padding.
type Conv = (&'static str, usize, [usize; 2], usize, [usize; 2]);

const fn one(name: &'static str, to: usize) -> Conv {
    (name, to, [1, 1], 1, [0, 0])
}

/// 3x3, padded at stride 1.
const fn three(name: &'static str, to: usize, stride: usize) -> Conv {
    let pad = if stride == 1 { 1 } else { 0 };
    (name, to, [3, 3], stride, [pad, pad])
}

/// 1xk or kx1, padded.
const fn flat(name: &'static str, to: usize, kernel: [usize; 2]) -> Conv {
    (name, to, kernel, 1, [kernel[0] / 2, kernel[1] / 2])
}

/// Adds convolutions one after the other.
fn row(start: Net, mut from: usize, convs: &[Conv]) -> Net {
    convs.iter().fold(start, |row, &(name, to, kernel, stride, padding)| {
        row.named(name, basic_conv(std::mem::replace(&mut from, to), to, kernel, stride, padding))
    })
}

fn branches(class: &'static str, from: usize, rows: &[&[Conv]]) -> Branches {
    rows.iter().fold(Branches::new(class), |all, convs| all.row(row(Net::new(""), from, convs)))
}

fn average() -> Net {
    Net::new("").hidden(AvgPool2d::new(3).stride(1).padding(1))
}

fn module_a(from: usize, pooled: usize) -> Branches {
    let five = ("branch5x5_2", 64, [5, 5], 1, [2, 2]);
    let double = [one("branch3x3dbl_1", 64), three("branch3x3dbl_2", 96, 1), three("branch3x3dbl_3", 96, 1)];
    branches("InceptionA", from, &[&[one("branch1x1", 64)], &[one("branch5x5_1", 48), five], &double]).row(row(
        average(),
        from,
        &[one("branch_pool", pooled)],
    ))
}

fn module_b(from: usize) -> Branches {
    let double = [one("branch3x3dbl_1", 64), three("branch3x3dbl_2", 96, 1), three("branch3x3dbl_3", 96, 2)];
    branches("InceptionB", from, &[&[three("branch3x3", 384, 2)], &double])
        .row(Net::new("").hidden(MaxPool2d::new(3).stride(2)))
}

fn module_c(from: usize, inner: usize) -> Branches {
    let (wide, high) = ([1, 7], [7, 1]);
    let single = [one("branch7x7_1", inner), flat("branch7x7_2", inner, wide), flat("branch7x7_3", 192, high)];
    let double = [
        one("branch7x7dbl_1", inner),
        flat("branch7x7dbl_2", inner, high),
        flat("branch7x7dbl_3", inner, wide),
        flat("branch7x7dbl_4", inner, high),
        flat("branch7x7dbl_5", 192, wide),
    ];
    branches("InceptionC", from, &[&[one("branch1x1", 192)], &single, &double]).row(row(
        average(),
        from,
        &[one("branch_pool", 192)],
    ))
}

fn module_d(from: usize) -> Branches {
    let seven = [
        one("branch7x7x3_1", 192),
        flat("branch7x7x3_2", 192, [1, 7]),
        flat("branch7x7x3_3", 192, [7, 1]),
        three("branch7x7x3_4", 192, 2),
    ];
    branches("InceptionD", from, &[&[one("branch3x3_1", 192), three("branch3x3_2", 320, 2)], &seven])
        .row(Net::new("").hidden(MaxPool2d::new(3).stride(2)))
}

fn module_e(from: usize) -> Branches {
    let fork = |wide, high| branches("", 384, &[&[flat(wide, 384, [1, 3])], &[flat(high, 384, [3, 1])]]);
    let single = row(Net::new(""), from, &[one("branch3x3_1", 384)]);
    let double = row(Net::new(""), from, &[one("branch3x3dbl_1", 448), three("branch3x3dbl_2", 384, 1)]);
    branches("InceptionE", from, &[&[one("branch1x1", 320)]])
        .row(single.inline(fork("branch3x3_2a", "branch3x3_2b")))
        .row(double.inline(fork("branch3x3dbl_3a", "branch3x3dbl_3b")))
        .row(row(average(), from, &[one("branch_pool", 192)]))
}

fn auxiliary(from: usize, classes: usize) -> Net {
    Net::new("InceptionAux")
        .hidden(AvgPool2d::new(5).stride(3))
        .named("conv0", basic_conv(from, 128, 1, 1, 0))
        .named("conv1", basic_conv(128, 768, 5, 1, 0))
        .hidden(AdaptiveAvgPool2d::new((1, 1)))
        .hidden(flatten())
        .named("fc", Linear::new(768, classes))
}

/// Input `[N, C, H, W]` from 75x75 on, output `[N, classes]`.
fn inception_v3(channels: usize, classes: usize) -> Net {
    let stem = [three("Conv2d_1a_3x3", 32, 2), ("Conv2d_2a_3x3", 32, [3, 3], 1, [0, 0]), three("Conv2d_2b_3x3", 64, 1)];
    let second = [one("Conv2d_3b_1x1", 80), ("Conv2d_4a_3x3", 192, [3, 3], 1, [0, 0])];
    let net = row(Net::new("Inception3"), channels, &stem).named("maxpool1", MaxPool2d::new(3).stride(2));
    row(net, 64, &second)
        .named("maxpool2", MaxPool2d::new(3).stride(2))
        .named("Mixed_5b", module_a(192, 32))
        .named("Mixed_5c", module_a(256, 64))
        .named("Mixed_5d", module_a(288, 64))
        .named("Mixed_6a", module_b(288))
        .named("Mixed_6b", module_c(768, 128))
        .named("Mixed_6c", module_c(768, 160))
        .named("Mixed_6d", module_c(768, 160))
        .named("Mixed_6e", module_c(768, 192))
        .aside("AuxLogits", auxiliary(768, classes), ("Mixed_6e", 0.4))
        .named("Mixed_7a", module_d(768))
        .named("Mixed_7b", module_e(1280))
        .named("Mixed_7c", module_e(2048))
        .named("avgpool", AdaptiveAvgPool2d::new((1, 1)))
        .named("dropout", Dropout::new(0.5))
        .hidden(flatten())
        .named("fc", Linear::new(2048, classes))
}
