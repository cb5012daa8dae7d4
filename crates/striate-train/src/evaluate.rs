//! A net on a part of the data.

use crate::boxes::{find_broken, heads_graph};
use crate::goal::{Counts, Goal};
use crate::step::Cut;
use crate::{Result, Tta};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use striate_graph::machine::Team;
use striate_graph::{Array, CompileOptions, Mode, Program, ProgramCache, Session};
use striate_nn::Module;
use striate_vision::data::{Batch, DataLoader};
use striate_vision::models::TaskNet;
use striate_vision::models::detection::{DetectError, DetectionNet, Detections, Frame};

/// Bytes of arenas that evaluation programs of other batch sizes may take.
const CACHE_BYTES: usize = 256 << 20;

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What the task counts.
    pub counts: Counts,
    /// Mean loss: cross-entropy by picture or pixel, binary cross-entropy by label, smooth L1 by (scaled) number. Detectors have none in
    /// evaluation, where no targets are assigned.
    pub loss: Option<f64>,
    /// Pictures that could not be read.
    pub skipped: usize,
}

impl Evaluation {
    /// What decides which weights are best: more is better.
    pub(crate) fn score(&self) -> f64 {
        match &self.counts {
            Counts::Regress(_) => -self.loss.unwrap_or(f64::INFINITY),
            // Over IoU 0.5 to 0.95.
            Counts::Detect(counts) => counts.means()[1],
            other => other.figures()[0],
        }
    }
}

/// Runs a net in evaluation mode, whatever the size of the batch: one program a shape, the last session kept.
pub struct Evaluator {
    goal: Goal,
    options: CompileOptions,
    team: Arc<Team>,
    programs: ProgramCache<Vec<usize>>,
    session: Option<(Vec<usize>, Session)>,
    /// How pictures lie in the batches of the session, for detectors.
    frame: Option<Frame>,
    /// For features instead of pictures: the cut, and the shape of a picture.
    cut: Option<(Cut, [usize; 3])>,
    /// Views of each picture, and the height and width of one.
    tta: (Tta, [usize; 2]),
}

impl Evaluator {
    /// For a net with this goal.
    pub fn new(goal: Goal, options: CompileOptions, team: Arc<Team>) -> Evaluator {
        let (programs, tta) = (ProgramCache::new(CACHE_BYTES), (Tta::None, [0, 0]));
        Evaluator { goal, options, team, programs, session: None, frame: None, cut: None, tta }
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

    /// The goal.
    pub fn goal(&self) -> &Goal {
        &self.goal
    }

    /// The threads.
    pub fn team(&self) -> &Team {
        &self.team
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

    /// The outputs for pictures `[N, C, H, W]`: logits `[N, classes]` or `[N, classes, H, W]`, or numbers as the net gives them; of
    /// several views, the logarithms of the mean probabilities or the mean numbers.
    ///
    /// # Errors
    /// Where the net cannot take them.
    pub fn logits(&mut self, net: &dyn Module, images: &Array) -> Result<Array> {
        let (tta, size) = self.tta;
        if tta == Tta::None {
            return self.logits_of_view(net, images);
        }
        let views = tta.views(images, size)?;
        let outputs = views.iter().map(|view| self.logits_of_view(net, &view.images)).collect::<Result<Vec<_>>>()?;
        self.goal.join_views(&outputs, &views.iter().map(|view| view.mirrored).collect::<Vec<_>>())
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

    /// What a detector finds on prepared pictures `[N, C, H, W]`, in their pixels.
    ///
    /// # Errors
    /// Where the net cannot take them, or gives numbers that are not finite.
    pub fn detect(&mut self, net: &dyn DetectionNet, images: &Array) -> Result<Vec<Detections>> {
        let shape = images.shape().to_vec();
        if self.session.as_ref().is_none_or(|(held, _)| *held != shape) {
            let (graph, frame) = heads_graph(net, &shape)?;
            let options = &self.options;
            let program = self.programs.get(&shape, || Program::compile(&graph, options))?;
            self.session = None; // its memory is free before the next one asks for memory
            self.session = Some((shape, Session::with_team(program, self.team.clone())));
            self.frame = Some(frame);
        }
        let (Some((_, session)), Some(frame)) = (&mut self.session, &self.frame) else { unreachable!("just made") };
        let program = session.program().clone();
        let outputs = session.run(&[("input", images)])?;
        match find_broken(&program, outputs) {
            Some((output, value)) => Err(DetectError::NotFinite { output, value }.into()),
            None => Ok(net.decode(outputs, frame)?),
        }
    }

    /// Counts what a net says of a batch; its losses are added up with how many they are.
    fn count(&mut self, net: &TaskNet, counts: &mut Counts, batch: &Batch) -> Result<(f64, u64)> {
        if let (Some(detector), Counts::Detect(counts)) = (net.detector(), &mut *counts) {
            let found = self.detect(detector, &batch.images())?;
            counts.add_batch(batch, found, detector.first_class());
            return Ok((0.0, 0));
        }
        let outputs = self.logits_behind(&**net, batch)?;
        self.goal.count(counts, (&outputs, batch), &self.team)
    }

    /// All of an epoch of `loader`; `None` where `stop` became true meanwhile.
    ///
    /// # Errors
    /// Those of the data and of the net.
    pub fn run(&mut self, net: &TaskNet, loader: &mut dyn DataLoader, stop: &AtomicBool) -> Result<Option<Evaluation>> {
        let mut counts = self.goal.counts();
        let (mut loss, mut weight) = (0.0, 0);
        loader.start(0, 0)?;
        while let Some(batch) = loader.next_batch()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if !batch.is_empty() {
                let (more, n) = self.count(net, &mut counts, &batch)?;
                (loss, weight) = (loss + more, weight + n);
            }
            loader.recycle(batch);
        }
        if let Counts::Detect(counts) = &mut counts {
            counts.close();
        }
        let loss = (weight > 0).then(|| loss / weight as f64);
        Ok(Some(Evaluation { counts, loss, skipped: loader.skipped().len() }))
    }
}
