//! Graphs in two: what never changes from run to run with the input, and the rest.

use crate::{Graph, Node, NodeId, Op, Parameter};
use std::sync::Arc;

/// How a value comes about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// From fixed cells and constants.
    Fixed,
    /// From them and from the input.
    FromInput,
    /// Something changes: a cell that is learned or updated, random numbers, another input.
    Changing,
}

impl Graph {
    /// The values at which the graph can be cut so that all that lies before depends on `input` alone, for as long as no cell
    /// changes for which `learned` is true. In the order of the graph; empty where nothing lies before.
    ///
    /// With a frozen backbone these are its features: computed once for each input, they never need to be computed again.
    pub fn frontier(&self, input: &str, learned: impl Fn(&Parameter) -> bool) -> Vec<NodeId> {
        let updated = self.updates.iter().flat_map(|id| match &self.node(*id).op {
            Op::Update { slot, state, .. } => [&[*slot], &state[..]].concat(),
            _ => Vec::new(),
        });
        let mut changing: Vec<bool> = self.parameters.iter().map(learned).collect();
        updated.for_each(|slot| changing[slot] = true);
        let mut origins: Vec<Origin> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let origin = match &node.op {
                Op::Input { name, .. } if &**name == input => Origin::FromInput,
                Op::Constant(_) => Origin::Fixed,
                Op::Parameter { slot, .. } if !changing[*slot] => Origin::Fixed,
                Op::Input { .. } | Op::Parameter { .. } | Op::Random { .. } => Origin::Changing,
                op if !op.is_pure() => Origin::Changing,
                _ => {
                    let of = |id: &NodeId| origins[id.index()];
                    match () {
                        () if node.inputs.iter().any(|id| of(id) == Origin::Changing) => Origin::Changing,
                        () if node.inputs.iter().any(|id| of(id) == Origin::FromInput) => Origin::FromInput,
                        () => Origin::Fixed,
                    }
                }
            };
            origins.push(origin);
        }
        let live = self.live();
        let mut crossing = vec![false; self.nodes.len()];
        for root in self.roots() {
            crossing[root.index()] = true;
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if live[index] && origins[index] == Origin::Changing {
                node.inputs.iter().for_each(|id| crossing[id.index()] = true);
            }
        }
        let ids = (0..self.nodes.len()).filter(|&i| crossing[i] && live[i] && origins[i] == Origin::FromInput);
        let found: Vec<NodeId> = ids.map(|i| NodeId(i as u32)).collect();
        match found.iter().any(|id| matches!(self.node(*id).op, Op::Input { .. })) {
            true => Vec::new(),
            false => found,
        }
    }

    /// The graph up to these values, which are its outputs `cut.0`, `cut.1`, …; nothing is updated.
    pub fn before(&self, at: &[NodeId]) -> Graph {
        let outputs = at.iter().enumerate().map(|(index, id)| (cut_name(index), *id)).collect();
        let graph = Graph {
            nodes: self.nodes.clone(),
            parameters: self.parameters.clone(),
            outputs,
            error: self.error.clone(),
            ..Graph::default()
        };
        graph.compact()
    }

    /// The graph behind these values, which become its inputs `cut.0`, `cut.1`, …
    pub fn after(&self, at: &[NodeId]) -> Graph {
        let mut graph = self.clone();
        for (index, id) in at.iter().enumerate() {
            let Node { shape, dtype, .. } = self.node(*id).clone();
            let node = &mut graph.nodes[id.index()];
            node.op = Op::Input { name: cut_name(index), shape, dtype };
            node.inputs.clear();
        }
        graph.compact()
    }

    /// Without nodes and cells that no root needs.
    fn compact(&self) -> Graph {
        let live = self.live();
        let mut new = Graph { error: self.error.clone(), ..Graph::default() };
        let mut map: Vec<Option<NodeId>> = vec![None; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| live[*index]) {
            let mut node = node.clone();
            match &mut node.op {
                Op::Parameter { slot, .. } => *slot = new.slot(&self.parameters[*slot]),
                Op::Update { slot, state, .. } => {
                    *slot = new.slot(&self.parameters[*slot]);
                    state.iter_mut().for_each(|slot| *slot = new.slot(&self.parameters[*slot]));
                }
                _ => {}
            }
            node.inputs = node.inputs.iter().filter_map(|id| map[id.index()]).collect();
            map[index] = Some(new.push(node));
        }
        let at = |id: &NodeId| map[id.index()];
        let named = |list: &[(Arc<str>, NodeId)]| -> Vec<(Arc<str>, NodeId)> {
            list.iter().filter_map(|(name, id)| Some((name.clone(), at(id)?))).collect()
        };
        (new.outputs, new.tapped) = (named(&self.outputs), named(&self.tapped));
        new.updates = self.updates.iter().filter_map(at).collect();
        new.guard = self.guard.as_ref().and_then(at);
        new.taps = self.taps.iter().filter_map(|(name, id)| Some((name.clone(), at(id)?))).collect();
        new
    }
}

fn cut_name(index: usize) -> Arc<str> {
    format!("cut.{index}").into()
}

#[cfg(test)]
mod tests {
    use crate::{
        Array, CompileOptions, DType, Graph, Mode, Op, Parameter, Program, RandomKind, RunOptions, Session, Trace,
        UpdateKind, interpret,
    };

    fn cell(values: Vec<f32>) -> Parameter {
        Parameter::new(Array::from_vec([values.len()], values).unwrap())
    }

    /// `relu(x * a)`, dropped at random, times `b`; `b` is updated.
    fn graph(a: &Parameter, b: &Parameter) -> Graph {
        let trace = Trace::new(Mode::Train);
        let x = trace.input("x", [2, 3], DType::F32);
        let features = (&x * &trace.parameter(a)).relu();
        let mask = trace.random(RandomKind::Mask { keep: 0.5 }, "drop", [2, 3]);
        let y = &(&features * &mask) * &trace.parameter(b);
        trace.update_plain(b, UpdateKind::Accumulate, &y.sum_all().expand([3]));
        trace.finish(&[("y", &y)]).unwrap()
    }

    fn run(graph: &Graph, inputs: &[(&str, &Array)]) -> Vec<Array> {
        graph.verify().unwrap();
        let program = Program::compile(graph, &CompileOptions::default()).unwrap();
        Session::new(program).run(inputs).unwrap().to_vec()
    }

    #[test]
    fn both_halves_give_what_the_whole_gives() {
        let (a, b) = (cell(vec![1.0, -2.0, 3.0]), cell(vec![0.5, 1.0, 2.0]));
        let whole = graph(&a, &b);
        let at = whole.frontier("x", |cell| cell.same_cell(&b));
        assert_eq!(at.len(), 1);
        let (before, after) = (whole.before(&at), whole.after(&at));
        assert_eq!((before.parameters.len(), after.parameters.len()), (1, 1));
        assert!(before.updates.is_empty() && after.updates.len() == 1);
        assert!(!after.inputs().any(|(name, ..)| &**name == "x"));
        let x = Array::from_vec([2, 3], vec![1.0f32, 1.0, 1.0, -1.0, -1.0, -1.0]).unwrap();
        let expected =
            interpret(&whole, &[("x", x.clone())], &RunOptions { apply_updates: false, ..RunOptions::default() });
        let features = run(&before, &[("x", &x)]);
        let got = run(&after, &[("cut.0", &features[0])]);
        assert!(got[0].bits_eq(&expected.unwrap()[0]));
        assert_ne!(b.array().f32s().unwrap(), [0.5, 1.0, 2.0], "the update was carried out");
    }

    #[test]
    fn what_is_learned_or_updated_or_random_is_behind_the_cut() {
        let (a, b) = (cell(vec![1.0, 2.0, 3.0]), cell(vec![1.0, 1.0, 1.0]));
        let whole = graph(&a, &b);
        // An update makes a cell change, whatever the caller says.
        let at = whole.frontier("x", |_| false);
        assert!(matches!(whole.node(at[0]).op, Op::Unary(_)), "{:?}", whole.node(at[0]));
        assert!(whole.frontier("x", |cell| cell.same_cell(&a)).is_empty(), "only the input lies before");
        assert!(whole.frontier("no such input", |_| false).is_empty());
    }

    #[test]
    fn frozen_layers_are_traced_as_in_evaluation() {
        let trace = Trace::new(Mode::Train);
        trace.freeze(&["layer1", "layer3.0"]);
        let mode_at = |path: &str| {
            let _scope = trace.enter(path);
            trace.mode()
        };
        for (path, mode) in [
            ("layer1", Mode::Eval),
            ("layer1.0.bn", Mode::Eval),
            ("layer10", Mode::Train),
            ("layer3", Mode::Train),
            ("layer3.0.conv", Mode::Eval),
        ] {
            assert_eq!(mode_at(path), mode, "{path}");
        }
        assert_eq!(trace.mode(), Mode::Train);
    }
}
