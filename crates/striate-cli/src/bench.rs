//! `striate bench`.

use crate::compute::{ComputeArgs, parse_seconds};
use crate::failure::Failure;
use crate::onnx::{self, is_onnx};
use crate::output::{Output, OutputArgs, print_json, print_line};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use striate::graph::StepProfile;
use striate::graph::machine::isa;
use striate::vision::bench::{
    Conv2dShape, ConvBench, ConvPass, ModelBench, bench_conv, bench_infer, bench_infer_graph, bench_train,
    bench_train_net, peak_rss_mib,
};
use striate::vision::models::detection::{find_detector, is_detector};
use striate::vision::models::find_model;

/// Most elements of a tensor that is measured (16 GiB of f32).
const MOST_ELEMENTS: u128 = 1 << 32;
/// Part of the nominal peak below which the measured one is doubtful.
const SOUND_PEAK: f64 = 0.9;
/// Steps that the profile names one by one.
const DEAREST_STEPS: usize = 40;

/// Measure nets and convolutions on this machine.
#[derive(Subcommand, Debug)]
pub enum BenchArgs {
    /// Time of a call of a net, from an NCHW buffer to its output.
    Infer(ModelBenchArgs),
    /// Training steps a second: forward, cross-entropy (of a detector its losses for random boxes), backward, SGD.
    Train(TrainBenchArgs),
    /// GFLOP/s of one convolution.
    Conv(ConvBenchArgs),
}

/// Flags of `infer` and `train`.
#[derive(Args, Debug)]
pub struct ModelBenchArgs {
    /// Registry name, whose weights are random, or an .onnx file.
    model: String,
    /// Pictures a call.
    #[arg(long, default_value = "1", value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    batch: usize,
    /// Side of the pictures [default: the model's].
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=16_384))]
    imgsz: Option<usize>,
    /// Channels of the pictures [default: the model's].
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    channels: Option<usize>,
    /// Classes [default: the model's].
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    classes: Option<usize>,
    /// How long to measure.
    #[arg(long, value_name = "X", default_value = "2", value_parser = parse_seconds)]
    seconds: f64,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Flags of `train`.
#[derive(Args, Debug)]
pub struct TrainBenchArgs {
    #[command(flatten)]
    model: ModelBenchArgs,
    /// Spend as long again on measuring each step of the program, and print where the time goes.
    #[arg(long)]
    profile: bool,
}

impl ModelBenchArgs {
    /// The input and the number of classes that the model has.
    fn defaults(&self) -> Result<([usize; 3], usize), Failure> {
        if is_detector(&self.model) {
            let spec = find_detector(&self.model)?;
            return Ok((spec.input, spec.classes));
        }
        if !is_onnx(&self.model) {
            let spec = find_model(&self.model)?;
            return Ok((spec.input, spec.classes));
        }
        let model = onnx::read(Path::new(&self.model))?;
        let shapes = onnx::shapes(&model, Some(self.batch), self.imgsz);
        let graph = onnx::graph(&model, &shapes)?;
        let classes = graph.outputs.first().and_then(|(_, id)| graph.node(*id).shape.last().copied());
        let input = match shapes.first().map(|shape| shape.dims()) {
            Some([_, c, h, w]) => [*c, *h, *w],
            _ => [1, 1, 1],
        };
        Ok((input, classes.unwrap_or(1)))
    }

    fn bench(&self) -> Result<ModelBench, Failure> {
        let ([channels, side, _], classes) = self.defaults()?;
        let bench = ModelBench {
            name: self.model.clone(),
            batch: self.batch,
            side: self.imgsz.unwrap_or(side),
            channels: self.channels.unwrap_or(channels),
            classes: self.classes.unwrap_or(classes),
            threads: self.compute.threads(),
            seconds: self.seconds,
            exact: self.compute.exact,
            profile: false,
        };
        check_elements("the pictures", &[bench.batch, bench.channels, bench.side, bench.side])?;
        Ok(bench)
    }
}

fn check_elements(what: &str, sizes: &[usize]) -> Result<(), Failure> {
    let elements: u128 = sizes.iter().map(|&n| n as u128).fold(1, u128::saturating_mul);
    if elements > MOST_ELEMENTS {
        return Err(Failure::usage(format!(
            "{what} would have {elements} elements; at most {MOST_ELEMENTS} are measured: make {sizes:?} smaller"
        )));
    }
    Ok(())
}

/// Runs the verb.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    match args {
        BenchArgs::Infer(args) => infer(args),
        BenchArgs::Train(args) => train(args),
        BenchArgs::Conv(args) => conv(args),
    }
}

fn setting(bench: &ModelBench) -> String {
    let ModelBench { name, batch, side, channels, classes, threads, exact, .. } = bench;
    let exact = if *exact { ", exact" } else { "" };
    format!("{name}, {batch}x{channels}x{side}x{side}, {classes} classes, {threads} thread(s), {}{exact}", isa().name())
}

fn rss(mib: Option<f64>) -> String {
    mib.map_or("unknown".into(), |mib| format!("{mib:.0} MiB"))
}

fn infer(args: &ModelBenchArgs) -> Result<(), Failure> {
    let bench = args.bench()?;
    let report = match is_onnx(&args.model) {
        true => {
            let model = onnx::read(Path::new(&args.model))?;
            bench_infer_graph(&bench, &onnx::graph(&model, &onnx::shapes(&model, Some(args.batch), args.imgsz))?)?
        }
        false => bench_infer(&bench)?,
    };
    let timing = report.timing;
    if args.output.choose() == Output::Json {
        print_json(&json!({
            "bench": "infer", "model": bench.name, "batch": bench.batch, "imgsz": bench.side, "channels": bench.channels,
            "classes": bench.classes, "threads": bench.threads, "exact": bench.exact, "isa": isa().name(),
            "median_ms": timing.median_ms, "min_ms": timing.min_ms, "calls": timing.calls,
            "images_per_s": report.images_per_s, "compile_ms": report.compile_ms, "peak_rss_mib": report.peak_rss_mib,
        }));
        return Ok(());
    }
    print_line(&format!(
        "{}\nmedian {:.3} ms, least {:.3} ms of {} calls; {:.1} images/s; compiled in {:.1} ms; peak memory {}",
        setting(&bench),
        timing.median_ms,
        timing.min_ms,
        timing.calls,
        report.images_per_s,
        report.compile_ms,
        rss(report.peak_rss_mib)
    ));
    Ok(())
}

/// The least times of the steps, those of one kernel together, and the dearest alone; the longest first.
fn print_steps(steps: &[StepProfile]) {
    let ms = |step: &StepProfile| step.least.as_secs_f64() * 1e3;
    let total: f64 = steps.iter().map(ms).sum();
    let line = |ms: f64, flops: u64, what: String| {
        let rate = if flops > 0 { format!("{:8.1}", flops as f64 / ms / 1e6) } else { " ".repeat(8) };
        print_line(&format!("{ms:9.3} ms {:5.1} % {rate} GFLOP/s  {what}", 100.0 * ms / total));
    };
    let mut kernels: BTreeMap<&str, (f64, u64, usize)> = BTreeMap::new();
    for step in steps {
        let sum = kernels.entry(&step.kernel).or_default();
        *sum = (sum.0 + ms(step), sum.1 + step.flops, sum.2 + 1);
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    print_line(&format!("\n{} steps, least times: {total:.3} ms", steps.len()));
    kernels.into_iter().for_each(|(name, (ms, flops, count))| line(ms, flops, format!("{count} x {name}")));
    let mut dearest: Vec<&StepProfile> = steps.iter().collect();
    dearest.sort_by_key(|step| std::cmp::Reverse(step.least));
    print_line("\nThe dearest steps");
    for step in dearest.into_iter().take(DEAREST_STEPS) {
        line(ms(step), step.flops, format!("{} {} {}", step.kernel, step.op, step.layer));
    }
}

fn train(args: &TrainBenchArgs) -> Result<(), Failure> {
    let bench = ModelBench { profile: args.profile, ..args.model.bench()? };
    let args = &args.model;
    let report = match is_onnx(&args.model) {
        true => bench_train_net(&bench, &onnx::open(Path::new(&args.model), args.imgsz)?.net)?,
        false => bench_train(&bench)?,
    };
    let timing = report.timing;
    if args.output.choose() == Output::Json {
        print_json(&json!({
            "bench": "train", "model": bench.name, "batch": bench.batch, "imgsz": bench.side, "channels": bench.channels,
            "classes": bench.classes, "threads": bench.threads, "exact": bench.exact, "isa": isa().name(),
            "images_per_s": report.images_per_s, "ms_per_step": timing.median_ms, "min_ms": timing.min_ms,
            "steps": timing.calls, "compile_ms": report.compile_ms, "nodes": report.nodes,
            "arena_mib": report.arena_bytes as f64 / 1024.0 / 1024.0, "loss": report.loss,
            "peak_rss_mib": report.peak_rss_mib,
        }));
        return Ok(());
    }
    print_line(&format!(
        "{}\n{:.1} images/s; {:.3} ms a step (median of {}), least {:.3} ms; {} nodes compiled in {:.1} ms; arena {:.1} MiB, peak memory {}; last loss {:.4}",
        setting(&bench),
        report.images_per_s,
        timing.median_ms,
        timing.calls,
        timing.min_ms,
        report.nodes,
        report.compile_ms,
        report.arena_bytes as f64 / 1024.0 / 1024.0,
        rss(report.peak_rss_mib),
        report.loss
    ));
    if bench.profile {
        print_steps(&report.steps);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pass {
    Fwd,
    BwdData,
    BwdWeight,
}

/// Flags of `conv`.
#[derive(Args, Debug)]
pub struct ConvBenchArgs {
    /// N,C,H,W of the input.
    #[arg(long, value_name = "N,C,H,W", value_parser = sizes::<4>)]
    input: [usize; 4],
    /// O,I,KH,KW of the weight; I is C divided by the groups.
    #[arg(long, value_name = "O,I,KH,KW", value_parser = sizes::<4>)]
    weight: [usize; 4],
    /// Step of the kernel.
    #[arg(long, value_name = "S|SH,SW", default_value = "1", value_parser = pair)]
    stride: [usize; 2],
    /// Zeros on each side.
    #[arg(long, value_name = "P|PH,PW", default_value = "0", value_parser = pair)]
    padding: [usize; 2],
    /// Distance of the kernel's elements.
    #[arg(long, value_name = "D|DH,DW", default_value = "1", value_parser = pair)]
    dilation: [usize; 2],
    /// Parts that the channels are cut into.
    #[arg(long, value_name = "G", default_value = "1", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    groups: usize,
    /// The output, or the gradient for the input or for the weight.
    #[arg(long, value_enum, default_value = "fwd")]
    pass: Pass,
    /// How long to measure.
    #[arg(long, value_name = "X", default_value = "1", value_parser = parse_seconds)]
    seconds: f64,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Exactly `N` numbers between commas.
fn sizes<const N: usize>(text: &str) -> Result<[usize; N], String> {
    let parsed: Result<Vec<usize>, _> = text.split(',').map(|part| part.trim().parse::<usize>()).collect();
    let wrong = || format!("it must be {N} whole numbers between commas, such as {}", ["1"; N].join(","));
    parsed.map_err(|_| wrong())?.try_into().map_err(|_| wrong())
}

/// One number for both axes, or one an axis.
fn pair(text: &str) -> Result<[usize; 2], String> {
    sizes::<1>(text)
        .map(|[n]| [n, n])
        .or_else(|_| sizes::<2>(text))
        .map_err(|_| "it must be one whole number, or two between commas: rows, columns".to_owned())
}

impl ConvBenchArgs {
    fn shape(&self) -> Result<Conv2dShape, Failure> {
        let ([n, ic, ih, iw], [oc, inner, kh, kw]) = (self.input, self.weight);
        if n == 0 {
            return Err(Failure::usage("--input: the batch is 0; it must be at least 1"));
        }
        if inner.checked_mul(self.groups) != Some(ic) {
            return Err(Failure::usage(format!(
                "--weight has I = {inner} input channels, but --input has C = {ic} and there are {} group(s): I must be C / groups = {}",
                self.groups,
                ic / self.groups
            )));
        }
        check_elements("the input", &self.input)?;
        check_elements("the weight", &self.weight)?;
        let [ph, pw] = self.padding;
        let (stride, dilation, groups) = (self.stride, self.dilation, self.groups);
        let shape = Conv2dShape { n, ih, iw, ic, oc, kh, kw, stride, pads: [ph, pw, ph, pw], dilation, groups };
        shape.check().map_err(|error| Failure::usage(error.to_string()))?;
        check_elements("the output", &[n, oc, shape.oh(), shape.ow()])?;
        Ok(shape)
    }
}

fn conv(args: &ConvBenchArgs) -> Result<(), Failure> {
    let shape = args.shape()?;
    let (pass, name) = match args.pass {
        Pass::Fwd => (ConvPass::Forward, "fwd"),
        Pass::BwdData => (ConvPass::BackwardData, "bwd-data"),
        Pass::BwdWeight => (ConvPass::BackwardWeight, "bwd-weight"),
    };
    let threads = args.compute.threads();
    let report = bench_conv(&ConvBench { shape, pass, threads, seconds: args.seconds, exact: args.compute.exact })?;
    let doubtful = report.nominal_peak_gflops.is_some_and(|nominal| report.peak_gflops < SOUND_PEAK * nominal);
    if args.output.choose() == Output::Json {
        print_json(&json!({
            "bench": "conv", "input": args.input, "weight": args.weight, "stride": args.stride, "padding": args.padding,
            "dilation": args.dilation, "groups": args.groups, "pass": name, "threads": threads,
            "exact": args.compute.exact, "isa": isa().name(), "kernel": report.kernel, "gflops": report.gflops,
            "percent_of_peak": report.percent_of_peak, "peak_gflops": report.peak_gflops,
            "nominal_peak_gflops": report.nominal_peak_gflops, "peak_below_nominal": doubtful,
            "median_ms": report.timing.median_ms, "min_ms": report.timing.min_ms, "calls": report.timing.calls,
            "peak_rss_mib": peak_rss_mib(),
        }));
        return Ok(());
    }
    let nominal = report.nominal_peak_gflops.map_or(String::new(), |nominal| {
        let flag = if doubtful { "; the measured peak is below 90 % of it: is the machine busy?" } else { "" };
        format!(" (nominal {nominal:.1}{flag})")
    });
    print_line(&format!(
        "{name} {:?} * {:?}, {threads} thread(s), {}\n{:.1} GFLOP/s, {:.1} % of the measured peak {:.1}{nominal}; median {:.4} ms, least {:.4} ms of {} calls",
        args.input,
        args.weight,
        report.kernel,
        report.gflops,
        report.percent_of_peak,
        report.peak_gflops,
        report.timing.median_ms,
        report.timing.min_ms,
        report.timing.calls
    ));
    Ok(())
}
