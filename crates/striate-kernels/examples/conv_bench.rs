//! Percent of the measured multiply-add peak on the 23 distinct convolutions of ResNet-50.
//!
//! `cargo run --release -p striate-kernels --example conv_bench -- [threads] [seconds per case] [pass] [layer]` with pass one of
//! fwd1 (forward, batch 1), fwd8, bwd8 (input gradient, batch 8, filter packing counted).

use std::time::Instant;
use striate_kernels::conv::{Algorithms, Conv2dShape, Epilogue, ForwardArgs, ForwardPlan, GradEpilogue, InputGradPlan};
use striate_kernels::cpu::measure_peak;
use striate_kernels::mem::AlignedBuf;
use striate_kernels::simd::isa;
use striate_kernels::threads::Team;

/// Name, input channels, output channels, input size, filter size, stride.
const LAYERS: [(&str, usize, usize, usize, usize, usize); 23] = [
    ("stem 7x7 s2", 3, 64, 224, 7, 2),
    ("1.0 1x1", 64, 64, 56, 1, 1),
    ("1.0 3x3", 64, 64, 56, 3, 1),
    ("1.0 1x1 up", 64, 256, 56, 1, 1),
    ("1.1 1x1 down", 256, 64, 56, 1, 1),
    ("2.0 1x1 down", 256, 128, 56, 1, 1),
    ("2.0 3x3 s2", 128, 128, 56, 3, 2),
    ("2.0 1x1 up", 128, 512, 28, 1, 1),
    ("2.0 1x1 s2", 256, 512, 56, 1, 2),
    ("2.1 1x1 down", 512, 128, 28, 1, 1),
    ("2.1 3x3", 128, 128, 28, 3, 1),
    ("3.0 1x1 down", 512, 256, 28, 1, 1),
    ("3.0 3x3 s2", 256, 256, 28, 3, 2),
    ("3.0 1x1 up", 256, 1024, 14, 1, 1),
    ("3.0 1x1 s2", 512, 1024, 28, 1, 2),
    ("3.1 1x1 down", 1024, 256, 14, 1, 1),
    ("3.1 3x3", 256, 256, 14, 3, 1),
    ("4.0 1x1 down", 1024, 512, 14, 1, 1),
    ("4.0 3x3 s2", 512, 512, 14, 3, 2),
    ("4.0 1x1 up", 512, 2048, 7, 1, 1),
    ("4.0 1x1 s2", 1024, 2048, 14, 1, 2),
    ("4.1 1x1 down", 2048, 512, 7, 1, 1),
    ("4.1 3x3", 512, 512, 7, 3, 1),
];

fn shape(layer: usize, n: usize) -> Conv2dShape {
    let (_, ic, oc, size, k, s) = LAYERS[layer];
    let pads = [k / 2; 4];
    Conv2dShape { n, ih: size, iw: size, ic, oc, kh: k, kw: k, stride: [s, s], pads, dilation: [1, 1], groups: 1 }
}

/// Direct sums alone where the environment has `EXACT`.
fn algorithms() -> Algorithms {
    if std::env::var_os("EXACT").is_some() { Algorithms::Exact } else { Algorithms::Fast }
}

fn filled(len: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(len);
    buf.iter_mut().enumerate().for_each(|(i, v)| *v = (i * 7919 % 1000) as f32 / 500.0 - 1.0);
    buf
}

/// Median and least seconds of `run`, called for `seconds`.
fn time(seconds: f64, mut run: impl FnMut()) -> (f64, f64) {
    run();
    let begin = Instant::now();
    let mut all = Vec::new();
    while all.len() < 5 || begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        run();
        all.push(start.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0])
}

/// Median and least seconds, and the kernel's name.
fn measure(pass: &str, shape: Conv2dShape, team: &Team, seconds: f64) -> (f64, f64, String) {
    let _awake = team.enter();
    let w = filled(shape.w_len());
    let (mut x, mut y) = (filled(shape.x_len()), filled(shape.y_len()));
    if pass.starts_with("fwd") {
        let plan = ForwardPlan::new(shape, isa(), algorithms());
        let mut packed = AlignedBuf::zeroed(plan.packed_len());
        plan.pack(team, &w, &mut packed);
        let mut scratch = AlignedBuf::zeroed(plan.scratch_len(team.threads()));
        let (median, least) = time(seconds, || {
            let epilogue = Epilogue::default();
            plan.run(
                team,
                ForwardArgs { x: &x, packed: &packed, epilogue, stats: None, y: &mut y, scratch: &mut scratch },
            )
        });
        return (median, least, plan.kernel_name());
    }
    let plan = InputGradPlan::new(shape, isa(), algorithms());
    let mut packed = AlignedBuf::zeroed(plan.packed_len());
    let mut scratch = AlignedBuf::zeroed(plan.scratch_len(team.threads()));
    let (median, least) = time(seconds, || {
        plan.pack(team, &w, &mut packed);
        plan.run(team, &y, &packed, GradEpilogue::default(), &mut x, &mut scratch);
    });
    (median, least, plan.kernel_name())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = args.first().and_then(|a| a.parse().ok()).unwrap_or(1);
    let seconds = args.get(1).and_then(|a| a.parse().ok()).unwrap_or(0.1);
    let only = args.get(2).filter(|p| *p != "all");
    let layer = args.get(3).and_then(|a| a.parse::<usize>().ok());
    let team = Team::new(threads);
    println!("{} threads, {}, peak {:.1} GFLOP/s", threads, isa(), measure_peak(&team, isa()));
    for pass in ["fwd1", "fwd8", "bwd8"].into_iter().filter(|p| only.is_none_or(|o| o == p)) {
        let batch = if pass == "fwd1" { 1 } else { 8 };
        let (mut product, mut product_least, mut counted) = (1.0f64, 1.0f64, 0);
        for index in (0..LAYERS.len()).filter(|i| layer.is_none_or(|l| l == *i)) {
            let shape = shape(index, batch);
            let peak = measure_peak(&team, isa());
            let (median, least, kernel) = measure(pass, shape, &team, seconds);
            let peak = peak.max(measure_peak(&team, isa()));
            let percent = |t: f64| shape.flops() as f64 / t / 1e9 / peak * 100.0;
            println!(
                "{pass} {index:2} {:14} {:6.1} % median {:6.1} % best  {kernel}",
                LAYERS[index].0,
                percent(median),
                percent(least)
            );
            // The stem's input gradient has 3 output channels: reported, not counted.
            if index > 0 || pass != "bwd8" {
                product *= percent(median);
                product_least *= percent(least);
                counted += 1;
            }
        }
        let root = |p: f64| p.powf(1.0 / counted.max(1) as f64);
        println!("{pass} geomean {:.1} % median, {:.1} % best", root(product), root(product_least));
    }
}
