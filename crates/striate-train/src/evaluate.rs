//! A net on a part of the data.

use crate::step::Cut;
use crate::tta::mean_logits;
use crate::{Result, Tta};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use striate_graph::machine::Team;
use striate_graph::{Array, CompileOptions, Mode, Program, ProgramCache, Session};
use striate_nn::Module;
use striate_vision::data::{Batch, DataLoader};
use striate_vision::metrics::ClassificationMetrics;

/// Bytes of arenas that evaluation programs of other batch sizes may take.
const CACHE_BYTES: usize = 256 << 20;

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Hits and misses.
    pub counts: ClassificationMetrics,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Pictures that could not be read.
    pub skipped: usize,
}

/// Runs a net in evaluation mode, whatever the size of the batch: one program a shape, the last session kept.
pub struct Evaluator {
    classes: usize,
    options: CompileOptions,
    team: Arc<Team>,
    programs: ProgramCache<Vec<usize>>,
    session: Option<(Vec<usize>, Session)>,
    /// For features instead of pictures: the cut, and the shape of a picture.
    cut: Option<(Cut, [usize; 3])>,
    /// Views of each picture, and the height and width of one.
    tta: (Tta, [usize; 2]),
}

impl Evaluator {
    /// For a net of so many classes.
    pub fn new(classes: usize, options: CompileOptions, team: Arc<Team>) -> Evaluator {
        let (programs, tta) = (ProgramCache::new(CACHE_BYTES), (Tta::None, [0, 0]));
        Evaluator { classes, options, team, programs, session: None, cut: None, tta }
    }

    /// With several views of each picture, of this height and width, where pictures went through [`Tta::preprocess`].
    pub fn with_tta(self, tta: Tta, size: [usize; 2]) -> Evaluator {
        Evaluator { tta: (tta, size), ..self }
    }

    /// For features of a frozen part instead of pictures `[C, H, W]`.
    pub(crate) fn behind(mut self, cut: Cut, picture: [usize; 3]) -> Evaluator {
        self.cut = Some((cut, picture));
        self
    }

    /// The logits of a batch of features.
    pub(crate) fn logits_behind(&mut self, net: &dyn Module, batch: &Batch) -> Result<Array> {
        let Some((cut, [c, h, w])) = &self.cut else { return self.logits(net, &batch.images()) };
        let n = batch.len();
        let inputs = cut.inputs(batch)?;
        if self.session.as_ref().is_none_or(|(held, _)| *held != [n]) {
            let graph = net.graph(Mode::Eval, &[n, *c, *h, *w])?;
            let at = cut.find(&graph, "input")?;
            let program = Program::compile(&graph.after(&at), &self.options)?;
            self.session = Some((vec![n], Session::with_team(program, self.team.clone())));
        }
        let Some((_, session)) = &mut self.session else { unreachable!("it was just made") };
        let inputs: Vec<(&str, &Array)> = inputs.iter().map(|(name, array)| (name.as_str(), array)).collect();
        Ok(session.run(&inputs)?[0].clone())
    }

    /// The logits `[N, classes]` of pictures `[N, C, H, W]`; of several views, the logarithms of the mean probabilities.
    ///
    /// # Errors
    /// Where the net cannot take them.
    pub fn logits(&mut self, net: &dyn Module, images: &Array) -> Result<Array> {
        let (tta, size) = self.tta;
        if tta == Tta::None {
            return self.logits_of_view(net, images);
        }
        let views = tta.views(images, size)?;
        let logits = views.iter().map(|view| self.logits_of_view(net, view)).collect::<Result<Vec<_>>>()?;
        Ok(mean_logits(&logits, self.classes)?)
    }

    fn logits_of_view(&mut self, net: &dyn Module, images: &Array) -> Result<Array> {
        let shape = images.shape().to_vec();
        if self.session.as_ref().is_none_or(|(held, _)| *held != shape) {
            let graph = net.graph(Mode::Eval, &shape)?;
            let options = &self.options;
            let program = self.programs.get(&shape, || Program::compile(&graph, options))?;
            self.session = None; // its memory is free before the next one asks for memory
            self.session = Some((shape, Session::with_team(program, self.team.clone())));
        }
        let Some((_, session)) = &mut self.session else { unreachable!("it was just made") };
        Ok(session.run(&[("input", images)])?[0].clone())
    }

    /// All of an epoch of `loader`; `None` where `stop` became true meanwhile.
    ///
    /// # Errors
    /// Those of the data and of the net.
    pub fn run(
        &mut self,
        net: &dyn Module,
        loader: &mut dyn DataLoader,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let mut counts = ClassificationMetrics::new(self.classes);
        let mut loss = 0.0;
        loader.start(0, 0)?;
        while let Some(batch) = loader.next_batch()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if !batch.is_empty() {
                let logits = self.logits_behind(net, &batch)?;
                let scores = logits.f32s()?;
                counts.update(scores, &batch.labels);
                let rows = scores.chunks_exact(self.classes).zip(&batch.labels);
                loss += rows.map(|(row, &label)| cross_entropy(row, label)).sum::<f64>();
            }
            loader.recycle(batch);
        }
        let loss = loss / counts.total().max(1) as f64;
        Ok(Some(Evaluation { counts, loss, skipped: loader.skipped().len() }))
    }
}

/// `-log softmax(row)[label]`, in doubles.
fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let most = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a });
    let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
    sum.ln() - f64::from(row[label] - most)
}

#[cfg(test)]
mod tests {
    use super::cross_entropy;

    #[test]
    fn cross_entropy_is_that_of_the_definition() {
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-12);
        assert!((cross_entropy(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
        assert!(cross_entropy(&[f32::NAN, 0.0], 1).is_nan());
    }
}
