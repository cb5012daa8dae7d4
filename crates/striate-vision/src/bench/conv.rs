use super::{BenchError, Timing, time};
use std::convert::Infallible;
use striate_kernels::conv::{
    Algorithms, Conv2dShape, Epilogue, ForwardArgs, ForwardPlan, GradEpilogue, InputGradPlan, WeightGradPlan,
};
use striate_kernels::cpu::measure_peak;
use striate_kernels::mem::AlignedBuf;
use striate_kernels::rng::{fill_normal, stream_key};
use striate_kernels::simd::isa;
use striate_kernels::threads::Team;

/// Which pass of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvPass {
    /// The output. Packing the weight is not counted.
    Forward,
    /// The gradient for the input. Packing the weight is counted.
    BackwardData,
    /// The gradient for the weight.
    BackwardWeight,
}

/// One convolution, from plain NHWC activations and a plain OIHW weight.
#[derive(Clone, Copy, Debug)]
pub struct ConvBench {
    /// Its shape.
    pub shape: Conv2dShape,
    /// Which pass.
    pub pass: ConvPass,
    /// Threads.
    pub threads: usize,
    /// How long to measure, in seconds.
    pub seconds: f64,
    /// Direct sums alone.
    pub exact: bool,
}

/// What it reached.
#[derive(Clone, Debug)]
pub struct ConvReport {
    /// Of one call.
    pub timing: Timing,
    /// 2 N OH OW O I KH KW over the median time.
    pub gflops: f64,
    /// Of the measured peak.
    pub percent_of_peak: f64,
    /// The rate of fused multiply-adds measured just before, on the same threads.
    pub peak_gflops: f64,
    /// Clock times width of the multiply-add units, where the system tells the clock.
    pub nominal_peak_gflops: Option<f64>,
    /// Which kernel ran.
    pub kernel: String,
}

fn noise(len: usize, purpose: &str) -> AlignedBuf {
    let mut values = AlignedBuf::zeroed(len);
    fill_normal(&mut values, stream_key(0, purpose), 0, 0);
    values
}

/// Times one convolution.
///
/// # Errors
/// A shape that is none.
pub fn bench_conv(bench: &ConvBench) -> Result<ConvReport, BenchError> {
    let ConvBench { shape, pass, threads, seconds, exact } = *bench;
    let algorithms = if exact { Algorithms::Exact } else { Algorithms::Fast };
    shape.check()?;
    let (team, isa) = (Team::new(threads), isa());
    let peak_gflops = measure_peak(&team, isa);
    let (mut x, mut w, mut y) = (noise(shape.x_len(), "x"), noise(shape.w_len(), "w"), noise(shape.y_len(), "y"));
    let _awake = team.enter();
    let (timing, kernel) = match pass {
        ConvPass::Forward => {
            let plan = ForwardPlan::new(shape, isa, algorithms);
            let mut packed = AlignedBuf::zeroed(plan.packed_len());
            let mut scratch = AlignedBuf::zeroed(plan.scratch_len(threads));
            plan.pack(&team, &w, &mut packed);
            let timing = time(seconds, || {
                let epilogue = Epilogue::default();
                plan.run(
                    &team,
                    ForwardArgs { x: &x, packed: &packed, epilogue, stats: None, y: &mut y, scratch: &mut scratch },
                );
                Ok::<(), Infallible>(())
            });
            (timing, plan.kernel_name())
        }
        ConvPass::BackwardData => {
            let plan = InputGradPlan::new(shape, isa, algorithms);
            let mut packed = AlignedBuf::zeroed(plan.packed_len());
            let mut scratch = AlignedBuf::zeroed(plan.scratch_len(threads));
            let timing = time(seconds, || {
                plan.pack(&team, &w, &mut packed);
                plan.run(&team, &y, &packed, GradEpilogue::default(), &mut x, &mut scratch);
                Ok::<(), Infallible>(())
            });
            (timing, plan.kernel_name())
        }
        ConvPass::BackwardWeight => {
            let plan = WeightGradPlan::new(shape, isa, algorithms);
            let mut scratch = AlignedBuf::zeroed(plan.scratch_len(threads));
            let timing = time(seconds, || {
                plan.run(&team, &x, &y, &mut w, &mut scratch);
                Ok::<(), Infallible>(())
            });
            (timing, plan.kernel_name())
        }
    };
    let Ok(timing) = timing;
    let gflops = shape.flops() as f64 / timing.median_ms / 1e6;
    let nominal = nominal_ghz().map(|ghz| ghz * threads as f64 * isa.lanes() as f64 * 2.0 * 2.0);
    Ok(ConvReport {
        timing,
        gflops,
        percent_of_peak: 100.0 * gflops / peak_gflops,
        peak_gflops,
        nominal_peak_gflops: nominal,
        kernel,
    })
}

/// The clock that Linux tells of the first core, in GHz.
fn nominal_ghz() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("cpu MHz"))?;
    let mhz: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    Some(mhz / 1e3)
}
