//! Running a model: one program, or, where shapes follow from values, several with the host between them.

use super::binder::Traced;
use super::call::{Learnt, Stop, made_name};
use super::model::OnnxModel;
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use striate_graph::machine::Team;
use striate_graph::{Array, CompileOptions, DType, Graph, Mode, NodeId, Op, Program, Session, Shape, Tensor, Trace};

/// How many shapes are kept compiled.
const MOST_PROGRAMS: usize = 16;
/// How often one run may stop for a value.
const MOST_STOPS: usize = 4096;

/// Shapes of the inputs, then what each stop made known.
type Key = (Vec<Shape>, Vec<String>);

/// Runs a model on arrays of any shapes that it can take; programs are kept by shapes.
pub struct OnnxSession {
    model: Arc<OnnxModel>,
    options: CompileOptions,
    team: Option<Arc<Team>>,
    parts: HashMap<Key, Part>,
    clock: u64,
}

/// One program between two stops.
struct Part {
    /// The whole trace so far, from the model's inputs.
    graph: Graph,
    /// Nodes before this one have been computed by earlier parts.
    computed: usize,
    stop: Option<Stop>,
    /// Values that later parts read.
    wanted: Vec<NodeId>,
    /// Values of earlier parts that this one reads.
    reads: Vec<NodeId>,
    session: Option<Session>,
    used: u64,
}

impl OnnxSession {
    /// For a model, with the usual options.
    pub fn new(model: Arc<OnnxModel>) -> OnnxSession {
        OnnxSession { model, options: CompileOptions::default(), team: None, parts: HashMap::new(), clock: 0 }
    }

    /// With other options and threads.
    pub fn with(mut self, options: CompileOptions, team: Arc<Team>) -> OnnxSession {
        (self.options, self.team) = (options, Some(team));
        self
    }

    /// The model.
    pub fn model(&self) -> &OnnxModel {
        &self.model
    }

    /// Runs the model on its inputs, in order; gives its outputs, in order.
    ///
    /// # Errors
    /// An input of another type or number of axes than declared; what cannot be traced for these shapes; what goes wrong in a run.
    pub fn run(&mut self, inputs: &[&Array]) -> Result<Vec<Array>> {
        self.check(inputs)?;
        let shapes: Vec<Shape> = inputs.iter().map(|array| array.shape().clone()).collect();
        // A part that turns out to be asked for more values is compiled anew, and the run begins again.
        for _ in 0..MOST_STOPS {
            if let Some(outputs) = self.attempt(&shapes, inputs)? {
                return Ok(outputs);
            }
        }
        Err(Error::malformed(&self.model.path, "the graph", "it stops for values without end"))
    }

    fn check(&self, inputs: &[&Array]) -> Result<()> {
        let path = &self.model.path;
        let declared = &self.model.inputs;
        if inputs.len() != declared.len() {
            let names: Vec<&str> = declared.iter().map(|input| input.name.as_str()).collect();
            let why = format!("{} were given, the model has {} ({})", inputs.len(), names.len(), names.join(", "));
            return Err(Error::malformed(path, "inputs", why));
        }
        for (input, array) in declared.iter().zip(inputs) {
            let rank = input.shape.as_ref().map(Vec::len);
            if array.dtype() != input.dtype || rank.is_some_and(|rank| rank != array.shape().rank()) {
                let axes = rank.map_or(String::new(), |rank| format!(" with {rank} axes"));
                let why =
                    format!("it takes {}{axes}, but the array is {} {}", input.dtype, array.dtype(), array.shape());
                return Err(Error::malformed(path, format!("input `{}`", input.name), why));
            }
        }
        Ok(())
    }

    /// Runs part after part; `None` where a part must be compiled anew.
    fn attempt(&mut self, shapes: &[Shape], inputs: &[&Array]) -> Result<Option<Vec<Array>>> {
        let mut learnt: Vec<Learnt> = Vec::new();
        let mut path: Vec<Key> = Vec::new();
        let mut made: Vec<(String, Array)> = Vec::new();
        let mut carried: BTreeMap<NodeId, Array> = BTreeMap::new();
        while learnt.len() < MOST_STOPS {
            let key = (shapes.to_vec(), learnt.iter().map(key_of).collect::<Vec<String>>());
            self.prepare(&key, &learnt, shapes)?;
            path.push(key.clone());
            if !self.has_all(&path, &carried) {
                return Ok(None);
            }
            let part = self.parts.get_mut(&key).ok_or_else(|| missing(&self.model))?;
            let outputs = part.run(&self.model, inputs, &made, &carried, (&self.options, self.team.as_ref()))?;
            let Some(stop) = part.stop.clone() else { return Ok(Some(outputs)) };
            let (needs, kept) = outputs.split_at(stop.needs.len());
            carried.extend(part.wanted.iter().copied().zip(kept.iter().cloned()));
            match stop.function {
                None => learnt.push(Learnt::Value(needs[0].clone())),
                Some(function) => {
                    let failed = |why: String| Error::malformed(&self.model.path, format!("node {}", stop.node), why);
                    let arrays = function(needs).map_err(failed)?;
                    let place = learnt.len();
                    learnt.push(Learnt::Made(arrays.iter().map(|a| (a.shape().clone(), a.dtype())).collect()));
                    made.extend(arrays.into_iter().enumerate().map(|(index, a)| (made_name(place, index), a)));
                }
            }
        }
        Err(Error::malformed(
            &self.model.path,
            "the graph",
            format!("it stops for values more than {MOST_STOPS} times"),
        ))
    }

    /// Traces the part of a key, if it is not there.
    fn prepare(&mut self, key: &Key, learnt: &[Learnt], shapes: &[Shape]) -> Result<()> {
        self.clock += 1;
        if let Some(part) = self.parts.get_mut(key) {
            part.used = self.clock;
            return Ok(());
        }
        let part = Part::trace(&self.model, learnt, shapes, self.clock)?;
        if self.parts.len() >= MOST_PROGRAMS.max(2 * (learnt.len() + 1)) {
            let oldest = self.parts.iter().min_by_key(|(_, part)| part.used).map(|(key, _)| key.clone());
            oldest.map(|oldest| self.parts.remove(&oldest));
        }
        self.parts.insert(key.clone(), part);
        Ok(())
    }

    /// Whether earlier parts have given what the last one reads; where not, they are told to.
    fn has_all(&mut self, path: &[Key], carried: &BTreeMap<NodeId, Array>) -> bool {
        let Some((last, earlier)) = path.split_last() else { return true };
        let reads = self.parts.get(last).map(|part| part.reads.clone()).unwrap_or_default();
        let missing: Vec<NodeId> = reads.into_iter().filter(|id| !carried.contains_key(id)).collect();
        for id in &missing {
            // The part whose own nodes end behind it: the next part begins there.
            let ends: Vec<usize> =
                path[1..].iter().map(|key| self.parts.get(key).map_or(0, |part| part.computed)).collect();
            let owner = ends.iter().position(|&end| id.index() < end).map(|index| &earlier[index]);
            if let Some(part) = owner.and_then(|key| self.parts.get_mut(key)) {
                part.want(*id);
            }
        }
        missing.is_empty()
    }
}

fn missing(model: &OnnxModel) -> Error {
    Error::malformed(&model.path, "the graph", "a part of it was lost")
}

/// What distinguishes what a stop made known: all of a value, of made arrays their shapes.
fn key_of(learnt: &Learnt) -> String {
    match learnt {
        Learnt::Value(array) => {
            let bits: Vec<u64> = match array.dtype() {
                DType::I64 => array.to_i64_vec().into_iter().map(|x| x as u64).collect(),
                _ => array.to_f64_vec().into_iter().map(f64::to_bits).collect(),
            };
            format!("{} {} {bits:x?}", array.dtype(), array.shape())
        }
        Learnt::Made(made) => format!("{made:?}"),
    }
}

impl Part {
    fn trace(model: &OnnxModel, learnt: &[Learnt], shapes: &[Shape], used: u64) -> Result<Part> {
        let trace = Trace::new(Mode::Eval);
        let declared = model.inputs.iter().zip(shapes);
        let inputs: Vec<Tensor> = declared.map(|(input, shape)| trace.input(&input.name, shape, input.dtype)).collect();
        let (traced, computed) = model.trace_with(&trace, &inputs, learnt.to_vec())?;
        let (graph, stop) = match traced {
            Traced::Whole(outputs) => (model.finish(trace, &outputs)?, None),
            Traced::Stopped(stop) => (model.finish(trace, &[])?, Some(stop)),
        };
        let mut part = Part { graph, computed, stop, wanted: Vec::new(), reads: Vec::new(), session: None, used };
        part.aim();
        Ok(part)
    }

    /// Sets what the part computes, and finds what it reads of earlier ones.
    fn aim(&mut self) {
        if let Some(stop) = &self.stop {
            let roots = stop.needs.iter().chain(&self.wanted).enumerate();
            self.graph.outputs = roots.map(|(index, id)| (format!("{index}").into(), *id)).collect();
        }
        let mut needed = vec![false; self.graph.nodes.len()];
        self.graph.outputs.iter().for_each(|(_, id)| needed[id.index()] = true);
        self.reads.clear();
        for index in (0..self.graph.nodes.len()).rev() {
            if !needed[index] {
                continue;
            }
            let node = &self.graph.nodes[index];
            let is_leaf = matches!(node.op, Op::Input { .. } | Op::Parameter { .. } | Op::Constant(_));
            if index < self.computed && !is_leaf {
                self.reads.push(NodeId(index as u32));
                continue;
            }
            node.inputs.iter().for_each(|input| needed[input.index()] = true);
        }
        self.reads.reverse();
        self.session = None;
    }

    fn want(&mut self, id: NodeId) {
        if !self.wanted.contains(&id) {
            self.wanted.push(id);
            self.aim();
        }
    }

    fn run(
        &mut self,
        model: &OnnxModel,
        inputs: &[&Array],
        made: &[(String, Array)],
        carried: &BTreeMap<NodeId, Array>,
        (options, team): (&CompileOptions, Option<&Arc<Team>>),
    ) -> Result<Vec<Array>> {
        let failed = |error: striate_graph::Error| Error::malformed(&model.path, "the graph", error.to_string());
        if self.session.is_none() {
            // Without what earlier parts have computed; every input stays in the trace, but only those that are read are given.
            let graph = self.graph.after(&self.reads);
            let program = Program::compile(&graph, options).map_err(failed)?;
            self.session = Some(match team {
                Some(team) => Session::with_team(program, team.clone()),
                None => Session::new(program),
            });
        }
        let session = self.session.as_mut().ok_or_else(|| missing(model))?;
        let mut given: Vec<(&str, &Array)> = Vec::new();
        let names: Vec<String> = (0..self.reads.len()).map(|index| format!("cut.{index}")).collect();
        let own = model.inputs.iter().map(|input| input.name.as_str()).zip(inputs.iter().copied());
        let cuts = names.iter().map(String::as_str).zip(self.reads.iter().filter_map(|id| carried.get(id)));
        let hosts = made.iter().map(|(name, array)| (name.as_str(), array));
        let read: Vec<String> = session.program().inputs().map(|(name, ..)| name.to_owned()).collect();
        given.extend(cuts.chain(hosts).chain(own).filter(|(name, _)| read.iter().any(|known| known == name)));
        Ok(session.run(&given).map_err(failed)?.to_vec())
    }
}
