//! Initial values: the functions of `torch.nn.init`, drawn from counter-based random numbers.
//!
//! Layers draw when they are constructed: [`manual_seed`] sets the seed and starts the count of draws again, so that the same
//! program builds the same net. [`reset_parameters`] draws again from (seed, parameter path) alone, whatever was built before.

use crate::module::join;
use crate::{Error, Module, Result, Visitor};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use striate_graph::{Array, DType, Parameter, Shape, rng};

static SEED: AtomicU64 = AtomicU64::new(0);
static DRAWS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static DRAWING: Cell<bool> = const { Cell::new(true) };
}

/// Builds layers on this thread without drawing their initial values: what would be random is 0, which costs neither time nor
/// memory until it is written. For nets whose values are loaded or reset right after.
///
/// ```
/// use striate_nn::{Linear, init::without_values};
/// let layer = without_values(|| Linear::new(4, 2));
/// assert!(layer.weight.array().f32s()?.iter().all(|w| *w == 0.0));
/// # Ok::<(), striate_graph::Error>(())
/// ```
pub fn without_values<R>(build: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            DRAWING.set(self.0);
        }
    }
    let _restore = Restore(DRAWING.replace(false));
    build()
}

/// Sets the seed of all initial values drawn from now on. Until it is called the seed is 0.
///
/// ```
/// use striate_nn::{Linear, manual_seed};
/// manual_seed(7);
/// let a = Linear::new(4, 4).weight.array();
/// manual_seed(7);
/// let b = Linear::new(4, 4).weight.array();
/// assert!(a.bits_eq(&b));
/// ```
pub fn manual_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
    DRAWS.store(0, Ordering::Relaxed);
}

/// A place to draw initial values from: a seed and a text that says for which layer.
#[derive(Clone, Debug)]
pub struct Draw {
    seed: u64,
    place: String,
}

impl Draw {
    /// The next draw of this program, from [`manual_seed`]'s seed.
    pub fn next() -> Draw {
        let count = DRAWS.fetch_add(1, Ordering::Relaxed);
        Draw { seed: SEED.load(Ordering::Relaxed), place: format!("#{count}") }
    }

    /// The draw for a layer path under a seed.
    pub fn at(seed: u64, path: &str) -> Draw {
        Draw { seed, place: path.to_owned() }
    }

    /// The key of the numbers for one parameter of the layer.
    pub fn key(&self, parameter: &str) -> [u32; 2] {
        rng::stream_key(self.seed, &format!("init:{}", join(&self.place, parameter)))
    }

    /// Uniform numbers in `[low, high)`.
    pub fn uniform(&self, parameter: &str, shape: impl Into<Shape>, low: f64, high: f64) -> Array {
        match DRAWING.get() {
            true => uniform(shape.into(), self.key(parameter), low, high),
            false => Array::zeros(shape, DType::F32),
        }
    }

    /// Normal numbers.
    pub fn normal(&self, parameter: &str, shape: impl Into<Shape>, mean: f64, std: f64) -> Array {
        match DRAWING.get() {
            true => normal(shape.into(), self.key(parameter), mean, std),
            false => Array::zeros(shape, DType::F32),
        }
    }
}

/// Gives all parameters of a module their initial values again, as functions of the seed and of the paths alone.
/// Cells of buffers are left as they are, but for those that the layers reset themselves (running statistics).
pub fn reset_parameters<M: Module + ?Sized>(module: &M, seed: u64) {
    struct Reset {
        prefix: String,
        seed: u64,
    }
    impl Visitor for Reset {
        fn module(&mut self, name: &str, module: &dyn Module) {
            let longer = join(&self.prefix, name);
            let outer = std::mem::replace(&mut self.prefix, longer);
            module.reset_parameters(&Draw::at(self.seed, &self.prefix));
            module.visit(self);
            self.prefix = outer;
        }
        fn parameter(&mut self, _: &str, _: &Parameter) {}
    }
    module.reset_parameters(&Draw::at(seed, ""));
    module.visit(&mut Reset { prefix: String::new(), seed });
}

/// Whose number of values the variance is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanMode {
    /// That of the inputs: keeps the variance forward.
    FanIn,
    /// That of the outputs: keeps the variance of gradients.
    FanOut,
}

/// The nonlinearity that follows, for [`calculate_gain`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Nonlinearity {
    Linear,
    Sigmoid,
    Tanh,
    Relu,
    LeakyRelu { slope: f64 },
    Selu,
}

/// The factor by which a nonlinearity asks the standard deviation to be multiplied.
pub fn calculate_gain(nonlinearity: Nonlinearity) -> f64 {
    match nonlinearity {
        Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
        Nonlinearity::Tanh => 5.0 / 3.0,
        Nonlinearity::Relu => 2f64.sqrt(),
        Nonlinearity::LeakyRelu { slope } => (2.0 / (1.0 + slope * slope)).sqrt(),
        Nonlinearity::Selu => 0.75,
    }
}

/// A way to choose initial values, as data. The functions of this module with PyTorch's names are these.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in `[low, high)`.
    Uniform {
        /// From.
        low: f64,
        /// To.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normal, redrawn until it lies in `[low, high]`.
    TruncNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
        /// From.
        low: f64,
        /// To.
        high: f64,
    },
    /// One value.
    Constant(f64),
    /// The identity matrix (2-D).
    Eye,
    /// The identity convolution (3-D, 4-D or 5-D).
    Dirac {
        /// Each group gets its own identity.
        groups: usize,
    },
    /// Uniform within `gain * sqrt(6 / (fan_in + fan_out))` (Glorot, Bengio 2010).
    XavierUniform {
        /// Factor.
        gain: f64,
    },
    /// Normal of deviation `gain * sqrt(2 / (fan_in + fan_out))` (Glorot, Bengio 2010).
    XavierNormal {
        /// Factor.
        gain: f64,
    },
    /// Uniform within `gain * sqrt(3 / fan)` (He et al. 2015).
    KaimingUniform {
        /// Which fan.
        mode: FanMode,
        /// Decides the gain.
        nonlinearity: Nonlinearity,
    },
    /// Normal of deviation `gain / sqrt(fan)` (He et al. 2015).
    KaimingNormal {
        /// Which fan.
        mode: FanMode,
        /// Decides the gain.
        nonlinearity: Nonlinearity,
    },
    /// Rows (or columns, if there are fewer) that are orthonormal, times `gain` (Saxe et al. 2013).
    Orthogonal {
        /// Factor.
        gain: f64,
    },
    /// Normal, with this fraction of each column set to 0 (2-D; Martens 2010).
    Sparse {
        /// Fraction of zeros.
        sparsity: f64,
        /// Standard deviation of the rest.
        std: f64,
    },
}

impl Init {
    /// The values for a shape, as f32.
    ///
    /// # Errors
    /// Where the shape has too few or too many axes for this initialiser.
    pub fn array(&self, shape: &Shape, key: [u32; 2]) -> Result<Array> {
        Ok(match *self {
            Init::Uniform { low, high } => uniform(shape.clone(), key, low, high),
            Init::Normal { mean, std } => normal(shape.clone(), key, mean, std),
            Init::TruncNormal { mean, std, low, high } => {
                let value = |i| truncated(key, i, (low - mean) / std, (high - mean) / std);
                from_fn(shape, |i| (mean + std * value(i as u64)).clamp(low, high) as f32)
            }
            Init::Constant(value) => Array::full(shape, value as f32),
            Init::Eye => {
                let [_, columns] = two_axes("eye_", shape)?;
                from_fn(shape, |i| if i / columns == i % columns { 1.0 } else { 0.0 })
            }
            Init::Dirac { groups } => dirac(shape, groups)?,
            Init::XavierUniform { gain } => {
                let bound = gain * (6.0 / xavier_fan(shape)?).sqrt();
                uniform(shape.clone(), key, -bound, bound)
            }
            Init::XavierNormal { gain } => normal(shape.clone(), key, 0.0, gain * (2.0 / xavier_fan(shape)?).sqrt()),
            Init::KaimingUniform { mode, nonlinearity } => {
                let bound = calculate_gain(nonlinearity) * (3.0 / kaiming_fan(shape, mode)?).sqrt();
                uniform(shape.clone(), key, -bound, bound)
            }
            Init::KaimingNormal { mode, nonlinearity } => {
                let std = calculate_gain(nonlinearity) / kaiming_fan(shape, mode)?.sqrt();
                normal(shape.clone(), key, 0.0, std)
            }
            Init::Orthogonal { gain } => orthogonal(shape, key, gain)?,
            Init::Sparse { sparsity, std } => sparse(shape, key, sparsity, std)?,
        })
    }

    /// Gives a cell these values, drawn for (draw, `name`).
    ///
    /// # Errors
    /// As [`Init::array`].
    pub fn set(&self, parameter: &Parameter, draw: &Draw, name: &str) -> Result<()> {
        let values = self.array(&parameter.shape(), draw.key(name))?;
        Ok(parameter.set(values.cast(parameter.dtype()))?)
    }

    fn set_next(&self, parameter: &Parameter) -> Result<()> {
        self.set(parameter, &Draw::next(), "")
    }
}

fn from_fn(shape: &Shape, value: impl FnMut(usize) -> f32) -> Array {
    let values: Vec<f32> = (0..shape.numel()).map(value).collect();
    Array::from_vec(shape, values).expect("one value an element")
}

fn filled(shape: Shape, fill: impl FnOnce(&mut [f32])) -> Array {
    let mut array = Array::zeros(shape, DType::F32);
    if let Some(values) = array.as_mut_slice::<f32>() {
        fill(values);
    }
    array
}

fn uniform(shape: Shape, key: [u32; 2], low: f64, high: f64) -> Array {
    filled(shape, |values| {
        rng::fill_uniform(values, key, 0, 0);
        values.iter_mut().for_each(|v| *v = (low + (high - low) * f64::from(*v)) as f32);
    })
}

fn normal(shape: Shape, key: [u32; 2], mean: f64, std: f64) -> Array {
    filled(shape, |values| {
        rng::fill_normal(values, key, 0, 0);
        values.iter_mut().for_each(|v| *v = (mean + std * f64::from(*v)) as f32);
    })
}

/// A standard normal number in `[low, high]` by rejection; in the far tails, where 4096 draws all miss, the last one.
fn truncated(key: [u32; 2], element: u64, low: f64, high: f64) -> f64 {
    let draws = (0..4096).map(|step| f64::from(rng::normal(key, step, element)));
    let mut last = 0.0;
    for value in draws {
        last = value;
        if (low..=high).contains(&value) {
            break;
        }
    }
    last
}

fn wrong_shape<T>(function: &str, shape: &Shape, fix: &str) -> Result<T> {
    Err(Error::Argument { what: format!("the shape given to {function}"), got: shape.to_string(), fix: fix.to_owned() })
}

fn two_axes(function: &str, shape: &Shape) -> Result<[usize; 2]> {
    match shape[..] {
        [rows, columns] => Ok([rows, columns]),
        _ => wrong_shape(function, shape, "it needs exactly 2 axes"),
    }
}

/// Inputs and outputs of a weight `[out, in, …]`, each times the size of the kernel.
///
/// # Errors
/// Where there are fewer than 2 axes.
pub fn fans(shape: &Shape) -> Result<[usize; 2]> {
    if shape.rank() < 2 {
        return wrong_shape("a fan-based initialiser", shape, "it needs at least 2 axes: [out, in, …]");
    }
    let kernel: usize = shape[2..].iter().product();
    Ok([shape[1] * kernel, shape[0] * kernel])
}

fn xavier_fan(shape: &Shape) -> Result<f64> {
    let [fan_in, fan_out] = fans(shape)?;
    Ok((fan_in + fan_out).max(1) as f64)
}

fn kaiming_fan(shape: &Shape, mode: FanMode) -> Result<f64> {
    let [fan_in, fan_out] = fans(shape)?;
    Ok(if mode == FanMode::FanIn { fan_in } else { fan_out }.max(1) as f64)
}

fn dirac(shape: &Shape, groups: usize) -> Result<Array> {
    if !(3..=5).contains(&shape.rank()) || groups == 0 || !shape[0].is_multiple_of(groups) {
        return wrong_shape("dirac_", shape, "it needs 3 to 5 axes, and groups that divide the first");
    }
    let kernel: usize = shape[2..].iter().product();
    let centre = shape[2..].iter().fold(0, |at, size| at * size + size / 2);
    let per_group = shape[0] / groups;
    Ok(from_fn(shape, |i| {
        let (place, input, output) = (i % kernel, i / kernel % shape[1], i / kernel / shape[1]);
        if place == centre && output % per_group == input { 1.0 } else { 0.0 }
    }))
}

fn orthogonal(shape: &Shape, key: [u32; 2], gain: f64) -> Result<Array> {
    if shape.rank() < 2 {
        return wrong_shape("orthogonal_", shape, "it needs at least 2 axes");
    }
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    // `count` vectors of length `length`, count <= length, made orthonormal.
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = (0..count)
        .map(|v| (0..length).map(|i| f64::from(rng::normal(key, 0, (v * length + i) as u64))).collect())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    for v in 0..count {
        let (done, rest) = vectors.split_at_mut(v);
        let vector = &mut rest[0];
        // Twice is enough (Kahan): the second pass removes what rounding left.
        for _ in 0..2 {
            for other in done.iter() {
                let along = dot(vector, other);
                vector.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
        }
        let norm = dot(vector, vector).sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    Ok(from_fn(shape, |i| {
        let (row, column) = (i / columns, i % columns);
        (gain * if rows <= columns { vectors[row][column] } else { vectors[column][row] }) as f32
    }))
}

fn sparse(shape: &Shape, key: [u32; 2], sparsity: f64, std: f64) -> Result<Array> {
    let [rows, columns] = two_axes("sparse_", shape)?;
    let zeros = ((sparsity * rows as f64).ceil() as usize).min(rows);
    let mut array = normal(shape.clone(), key, 0.0, std);
    if let Some(values) = array.as_mut_slice::<f32>() {
        for column in 0..columns {
            for row in rng::permutation(key, column as u64 + 1, rows).into_iter().take(zeros) {
                values[row * columns + column] = 0.0;
            }
        }
    }
    Ok(array)
}

macro_rules! torch_functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $init:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Where the shape does not fit the initialiser.
        pub fn $name(parameter: &Parameter $(, $argument: $type)*) -> Result<()> {
            $init.set_next(parameter)
        }
    )*};
}

torch_functions! {
    /// Uniform in `[low, high)`.
    uniform_(low: f64, high: f64) => Init::Uniform { low, high };
    /// Normal.
    normal_(mean: f64, std: f64) => Init::Normal { mean, std };
    /// Normal, redrawn until it lies in `[low, high]` (PyTorch's defaults: 0, 1, -2, 2).
    trunc_normal_(mean: f64, std: f64, low: f64, high: f64) => Init::TruncNormal { mean, std, low, high };
    /// One value.
    constant_(value: f64) => Init::Constant(value);
    /// 1.
    ones_() => Init::Constant(1.0);
    /// 0.
    zeros_() => Init::Constant(0.0);
    /// The identity matrix.
    eye_() => Init::Eye;
    /// The identity convolution.
    dirac_(groups: usize) => Init::Dirac { groups };
    /// Glorot and Bengio 2010, uniform.
    xavier_uniform_(gain: f64) => Init::XavierUniform { gain };
    /// Glorot and Bengio 2010, normal.
    xavier_normal_(gain: f64) => Init::XavierNormal { gain };
    /// He et al. 2015, uniform.
    kaiming_uniform_(mode: FanMode, nonlinearity: Nonlinearity) => Init::KaimingUniform { mode, nonlinearity };
    /// He et al. 2015, normal.
    kaiming_normal_(mode: FanMode, nonlinearity: Nonlinearity) => Init::KaimingNormal { mode, nonlinearity };
    /// Saxe et al. 2013.
    orthogonal_(gain: f64) => Init::Orthogonal { gain };
    /// Martens 2010; PyTorch's default std is 0.01.
    sparse_(sparsity: f64, std: f64) => Init::Sparse { sparsity, std };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(init: Init, shape: impl Into<Shape>) -> Vec<f32> {
        init.array(&shape.into(), rng::stream_key(1, "test")).unwrap().f32s().unwrap().to_vec()
    }

    #[test]
    fn orthogonal_rows_are_orthonormal() {
        for shape in [[4, 9], [9, 4], [5, 5]] {
            let w = values(Init::Orthogonal { gain: 2.0 }, shape);
            let (rows, columns) = (shape[0], shape[1]);
            let at = |r: usize, c: usize| f64::from(w[r * columns + c]);
            let count = rows.min(columns);
            for a in 0..count {
                for b in 0..count {
                    let dot: f64 = match rows <= columns {
                        true => (0..columns).map(|i| at(a, i) * at(b, i)).sum(),
                        false => (0..rows).map(|i| at(i, a) * at(i, b)).sum(),
                    };
                    assert!((dot - if a == b { 4.0 } else { 0.0 }).abs() < 1e-5, "{shape:?} {a} {b} {dot}");
                }
            }
        }
    }

    #[test]
    fn dirac_is_the_identity_convolution() {
        let w = values(Init::Dirac { groups: 2 }, [4, 2, 3, 3]);
        let ones: Vec<usize> = w.iter().enumerate().filter(|(_, v)| **v == 1.0).map(|(i, _)| i).collect();
        assert_eq!(ones, [4, 18 + 9 + 4, 36 + 4, 54 + 9 + 4]);
    }

    #[test]
    fn truncated_and_sparse() {
        let w = values(Init::TruncNormal { mean: 0.5, std: 1.0, low: 0.0, high: 1.0 }, [500]);
        assert!(w.iter().all(|v| (0.0..=1.0).contains(v)));
        let w = values(Init::Sparse { sparsity: 0.3, std: 1.0 }, [10, 3]);
        for column in 0..3 {
            assert_eq!((0..10).filter(|r| w[r * 3 + column] == 0.0).count(), 3);
        }
        assert!(Init::Eye.array(&Shape::from([3]), [0, 0]).is_err());
        assert!(Init::XavierNormal { gain: 1.0 }.array(&Shape::from([3]), [0, 0]).is_err());
    }
}
