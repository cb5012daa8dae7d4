use crate::infer::{host_output, infer};
use crate::{Array, DType, Error, Graph, Mode, Node, NodeId, Op, Origin, Parameter, RandomKind, Shape};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

/// A graph that is being recorded.
///
/// ```
/// use striate_graph::{DType, Mode, Trace};
/// let trace = Trace::new(Mode::Eval);
/// let x = trace.input("x", &[2, 3], DType::F32);
/// let y = x.relu();
/// let graph = trace.finish(&[("y", &y)])?;
/// println!("{graph}");
/// # Ok::<(), striate_graph::Error>(())
/// ```
#[derive(Clone)]
pub struct Trace(Rc<RefCell<State>>);

struct State {
    graph: Graph,
    mode: Mode,
    /// Layers that behave as in evaluation all the same.
    frozen: Vec<Arc<str>>,
    least_momentum: f64,
    scopes: Vec<Arc<str>>,
    /// The node of each cell that has been read, by slot.
    parameters: HashMap<usize, NodeId>,
}

/// A symbolic handle to a value of a graph that is being traced. It never holds data.
#[derive(Clone)]
pub struct Tensor {
    trace: Trace,
    id: NodeId,
}

/// Keeps the trace inside a layer's path; ends when dropped.
pub struct Scope(Trace);

impl Drop for Scope {
    fn drop(&mut self) {
        self.0.0.borrow_mut().scopes.pop();
    }
}

impl Trace {
    /// An empty trace; `mode` is what layers see.
    pub fn new(mode: Mode) -> Trace {
        Trace(Rc::new(RefCell::new(State {
            graph: Graph::default(),
            mode,
            frozen: Vec::new(),
            least_momentum: 0.0,
            scopes: Vec::new(),
            parameters: HashMap::new(),
        })))
    }

    /// Train or eval; eval within a layer that [`Trace::freeze`] named.
    pub fn mode(&self) -> Mode {
        let state = self.0.borrow();
        let within = |path: &str, layer: &str| {
            path.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let is_frozen = state.scopes.last().is_some_and(|path| state.frozen.iter().any(|layer| within(path, layer)));
        if is_frozen { Mode::Eval } else { state.mode }
    }

    /// Lets the layers at and below these paths behave as in evaluation, whatever the mode of the trace: nothing in them is random,
    /// and batch norm neither uses nor updates the statistics of the batch.
    pub fn freeze<S: AsRef<str>>(&self, layers: &[S]) {
        self.0.borrow_mut().frozen.extend(layers.iter().map(|layer| Arc::from(layer.as_ref())));
    }

    /// Lets running statistics follow those of each batch by at least this momentum, whatever their layers say: some nets are made
    /// for so many steps that in a short training their statistics would stay near their initial values.
    pub fn set_least_momentum(&self, momentum: f64) {
        self.0.borrow_mut().least_momentum = momentum;
    }

    /// What [`Trace::set_least_momentum`] set; 0 unless it did.
    pub fn least_momentum(&self) -> f64 {
        self.0.borrow().least_momentum
    }

    /// A value that each run gives.
    #[track_caller]
    pub fn input(&self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Tensor {
        self.push(Op::Input { name: name.into(), shape: shape.into(), dtype }, &[])
    }

    /// Fixed data.
    #[track_caller]
    pub fn constant(&self, array: Array) -> Tensor {
        self.push(Op::Constant(array), &[])
    }

    /// A fixed f32 scalar.
    #[track_caller]
    pub fn scalar(&self, value: f32) -> Tensor {
        self.constant(Array::scalar(value))
    }

    /// The value of a cell, as it was before this run's updates. A cell is one node of a trace, however often it is asked
    /// for, so that gradients for it take in all its uses.
    #[track_caller]
    pub fn parameter(&self, parameter: &Parameter) -> Tensor {
        let slot = self.0.borrow_mut().graph.slot(parameter);
        if let Some(id) = self.0.borrow().parameters.get(&slot) {
            return Tensor { trace: self.clone(), id: *id };
        }
        let tensor = self.push(Op::Parameter { slot, shape: parameter.shape(), dtype: parameter.dtype() }, &[]);
        self.0.borrow_mut().parameters.insert(slot, tensor.id);
        tensor
    }

    /// Records an update of a cell that needs no hyper-parameters: `Assign` or `Accumulate`.
    #[track_caller]
    pub fn update_plain(&self, parameter: &Parameter, kind: crate::UpdateKind, value: &Tensor) {
        let no_hyper = self.constant(Array::zeros([0], DType::F32));
        self.update(parameter, &[], kind, &[value, &no_hyper]);
    }

    /// Random numbers, fresh at each run, keyed by the run's seed and step, by `purpose` and by the current layer path.
    #[track_caller]
    pub fn random(&self, kind: RandomKind, purpose: &str, shape: impl Into<Shape>) -> Tensor {
        let stream = format!("{purpose}:{}", self.path()).into();
        self.push(Op::Random { kind, stream, shape: shape.into() }, &[])
    }

    /// Enters a layer: until the returned scope is dropped, nodes carry this path (used as it is, not appended).
    pub fn enter(&self, path: &str) -> Scope {
        self.0.borrow_mut().scopes.push(path.into());
        Scope(self.clone())
    }

    /// The path of the layer that is being traced; empty outside.
    pub fn path(&self) -> Arc<str> {
        self.0.borrow().scopes.last().cloned().unwrap_or_else(|| "".into())
    }

    /// How many layers have been entered and not left; 0 outside layers.
    pub fn depth(&self) -> usize {
        self.0.borrow().scopes.len()
    }

    /// Calls registered Rust code; see [`Op::HostCall`]. Gives one tensor an output.
    #[track_caller]
    pub fn host_call(
        &self,
        name: &str,
        inputs: &[&Tensor],
        outputs: &[(Shape, DType)],
        backward: Option<&str>,
    ) -> Vec<Tensor> {
        let op = Op::HostCall { name: name.into(), outputs: outputs.to_vec(), backward: backward.map(Into::into) };
        let first = self.push(op, inputs);
        let others: Vec<Tensor> =
            (1..outputs.len()).map(|index| self.push(Op::HostOutput { index }, &[&first])).collect();
        std::iter::once(first).chain(others).collect()
    }

    /// Records an update of a cell; see [`Op::Update`].
    #[track_caller]
    pub fn update(&self, parameter: &Parameter, state: &[Parameter], kind: crate::UpdateKind, inputs: &[&Tensor]) {
        let (slot, state) = {
            let graph = &mut self.0.borrow_mut().graph;
            (graph.slot(parameter), state.iter().map(|p| graph.slot(p)).collect())
        };
        let node = self.push(Op::Update { kind, slot, state }, inputs);
        self.0.borrow_mut().graph.updates.push(node.id);
    }

    /// Declares the scalar that must be finite before any update is carried out.
    pub fn guard(&self, loss: &Tensor) {
        self.0.borrow_mut().graph.guard = Some(loss.id);
    }

    /// Names a value by the path of its layer, so that it can be tapped.
    pub fn mark(&self, path: &str, value: &Tensor) {
        self.0.borrow_mut().graph.taps.insert(path.into(), value.id);
    }

    /// Ends the trace: the graph with the given outputs.
    ///
    /// # Errors
    /// The first error of the trace, such as shapes that do not fit.
    pub fn finish(self, outputs: &[(&str, &Tensor)]) -> Result<Graph, Error> {
        let mut graph = self.0.borrow().graph.clone();
        if let Some(error) = graph.error.take() {
            return Err(error);
        }
        graph.outputs = outputs.iter().map(|(name, tensor)| (Arc::from(*name), tensor.id)).collect();
        Ok(graph)
    }

    /// Looks at the graph as it is now.
    pub fn with_graph<R>(&self, look: impl FnOnce(&Graph) -> R) -> R {
        look(&self.0.borrow().graph)
    }

    /// Records an operation. Shapes that do not fit mark the node; the error comes out at [`Trace::finish`].
    #[track_caller]
    pub fn push(&self, op: Op, inputs: &[&Tensor]) -> Tensor {
        let at = Location::caller();
        let layer = self.path();
        self.push_at(op, inputs, Origin { layer, at })
    }

    pub(crate) fn push_at(&self, op: Op, inputs: &[&Tensor], origin: Origin) -> Tensor {
        let mut state = self.0.borrow_mut();
        let graph = &mut state.graph;
        let ids: Vec<NodeId> = inputs.iter().map(|t| t.id).collect();
        let poisoned = ids.iter().any(|id| matches!(graph.node(*id).op, Op::Poison));
        let inferred = if poisoned {
            None
        } else {
            let shapes: Vec<(&Shape, DType)> =
                ids.iter().map(|id| (&graph.node(*id).shape, graph.node(*id).dtype)).collect();
            let found = match host_output(&op, ids.first().map(|id| graph.node(*id))) {
                Some(declared) => Ok(declared),
                None => infer(&op, &shapes),
            };
            match found {
                Ok(found) => Some(found),
                Err(error) => {
                    let name = op.name().to_owned();
                    graph.error.get_or_insert(Error::Shape {
                        op: name,
                        layer: origin.layer.to_string(),
                        at: origin.at,
                        error,
                    });
                    None
                }
            }
        };
        let node = match inferred {
            Some((shape, dtype)) => Node { op, inputs: ids, shape, dtype, origin },
            None => Node { op: Op::Poison, inputs: Vec::new(), shape: Shape::default(), dtype: DType::F32, origin },
        };
        let id = graph.push(node);
        drop(state);
        Tensor { trace: self.clone(), id }
    }

    /// True where both handles record into the same graph.
    pub(crate) fn same(&self, other: &Trace) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The first error of the trace, if there is one.
    pub fn check(&self) -> Result<(), Error> {
        self.with_graph(|graph| graph.error.clone().map_or(Ok(()), Err))
    }

    /// Records that a layer was given something it cannot take; the result stands for its output.
    #[track_caller]
    pub fn refuse(&self, op: &str, rule: impl Into<String>, fix: impl Into<String>) -> Tensor {
        let origin = Origin { layer: self.path(), at: Location::caller() };
        let error = Error::Shape {
            op: op.to_owned(),
            layer: origin.layer.to_string(),
            at: origin.at,
            error: crate::ShapeError { rule: rule.into(), fix: fix.into() },
        };
        let mut state = self.0.borrow_mut();
        state.graph.error.get_or_insert(error);
        let id = state.graph.push(Node {
            op: Op::Poison,
            inputs: Vec::new(),
            shape: Shape::default(),
            dtype: DType::F32,
            origin,
        });
        drop(state);
        Tensor { trace: self.clone(), id }
    }

    /// The handle of a value that has been recorded.
    ///
    /// # Panics
    /// Where nothing with this id has been recorded.
    pub fn at(&self, id: NodeId) -> Tensor {
        assert!(id.index() < self.0.borrow().graph.nodes.len(), "no value %{} in this trace", id.0);
        self.tensor(id)
    }

    pub(crate) fn tensor(&self, id: NodeId) -> Tensor {
        Tensor { trace: self.clone(), id }
    }
}

impl Tensor {
    /// The trace that it belongs to.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Its place in the graph.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its shape; empty where an earlier operation was refused (see [`Tensor::is_poisoned`]).
    pub fn shape(&self) -> Shape {
        self.trace.with_graph(|graph| graph.node(self.id).shape.clone())
    }

    /// Its size along an axis; 1 where it has no such axis, so that layers can compute on after an error.
    pub fn size(&self, axis: usize) -> usize {
        self.shape().get(axis).copied().unwrap_or(1)
    }

    /// Its type.
    pub fn dtype(&self) -> DType {
        self.trace.with_graph(|graph| graph.node(self.id).dtype)
    }

    /// True where it stands for an operation that was refused.
    pub fn is_poisoned(&self) -> bool {
        self.trace.with_graph(|graph| matches!(graph.node(self.id).op, Op::Poison))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trace.with_graph(|graph| {
            let node = graph.node(self.id);
            write!(f, "Tensor(%{} = {} {} {})", self.id.0, node.op.name(), node.dtype, node.shape)
        })
    }
}
