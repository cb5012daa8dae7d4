use crate::state::{self, StateDict};
use crate::{LoadReport, Module, Result};
use striate_graph::{Array, DType, Graph, Mode, Parameter, Trace, UpdateKind};

/// An exponential moving average of a net's parameters and buffers, which often measures better than the last weights.
///
/// It is a small graph of its own, run after each step, so that it reads the new values: `ema = decay * ema + (1 - decay) *
/// value`. Whole numbers (batch counts) are copied.
///
/// ```
/// use striate_nn::{Linear, Module, optim::Ema};
/// let net = Linear::new(4, 2);
/// let ema = Ema::new(&net, 0.999);
/// let graph = ema.graph()?; // run it after each training step, with ema.inputs()
/// # Ok::<(), striate_nn::Error>(())
/// ```
pub struct Ema {
    decay: f64,
    warm_up: f64,
    cells: Vec<(String, Parameter, Parameter)>,
    /// Names below which values are copied.
    copied: Vec<String>,
}

impl Ema {
    /// The average begins as a copy of the net as it is.
    pub fn new<M: Module + ?Sized>(net: &M, decay: f64) -> Ema {
        let all = net.named_parameters().into_iter().chain(net.buffers());
        let copied = all.map(|(name, cell)| {
            let average = Parameter::buffer(cell.array());
            average.set_name(&format!("ema.{name}"));
            (name, cell, average)
        });
        Ema { decay, warm_up: 0.0, cells: copied.collect(), copied: Vec::new() }
    }

    /// The values of these layers (by path) are copied, not averaged: those of frozen layers then keep their bits.
    pub fn copy<S: AsRef<str>>(self, layers: &[S]) -> Ema {
        Ema { copied: layers.iter().map(|layer| format!("{}.", layer.as_ref())).collect(), ..self }
    }

    /// The decay grows from 0 as `decay * (1 - e^(-step / warm_up))`, so that the first weights are soon forgotten.
    pub fn warm_up(self, steps: f64) -> Ema {
        Ema { warm_up: steps, ..self }
    }

    /// The graph that updates the averages, with the input `ema.decay` and no outputs.
    ///
    /// # Errors
    /// None that a net which could be trained gives.
    pub fn graph(&self) -> Result<Graph> {
        let trace = Trace::new(Mode::Train);
        let decay = trace.input("ema.decay", [1], DType::F32);
        for (name, cell, average) in &self.cells {
            let value = trace.parameter(cell);
            let copied = self.copied.iter().any(|layer| name.starts_with(layer));
            match cell.dtype().is_float() && !copied {
                true => trace.update(average, &[], UpdateKind::Average, &[&value, &decay]),
                false => trace.update_plain(average, UpdateKind::Assign, &value),
            }
        }
        Ok(trace.finish(&[])?)
    }

    /// The decay of update number `step` (from 1), as the graph's input.
    pub fn inputs(&self, step: u64) -> Vec<(String, Array)> {
        let grown = if self.warm_up > 0.0 { 1.0 - (-(step as f64) / self.warm_up).exp() } else { 1.0 };
        vec![("ema.decay".to_owned(), Array::full([1], (self.decay * grown) as f32))]
    }

    /// Starts again from the net as it is.
    pub fn reset(&self) {
        self.cells.iter().for_each(|(_, cell, average)| average.update(|a| *a = cell.array()));
    }

    /// Exchanges net and averages, for evaluation; again puts them back.
    pub fn swap(&self) {
        for (_, cell, average) in &self.cells {
            let (ours, theirs) = (average.array(), cell.array());
            cell.update(|a| *a = ours);
            average.update(|a| *a = theirs);
        }
    }

    /// The averages under the net's names.
    pub fn state_dict(&self) -> StateDict {
        self.cells.iter().map(|(name, _, average)| (name.clone(), average.array())).collect()
    }

    /// Replaces the averages.
    ///
    /// # Errors
    /// Where names or shapes differ; then nothing has been loaded.
    pub fn load_state_dict(&self, dict: &StateDict) -> Result<LoadReport> {
        let cells: Vec<_> = self.cells.iter().map(|(name, _, average)| (name.clone(), average.clone())).collect();
        state::load(&cells, dict, true)
    }
}
