//! What a handler of an operator sees: the node's inputs and attributes, and ways to ask for values.

use super::attributes::Attributes;
use super::value::Value;
use crate::onnx::external::ExternalData;
use striate_graph::{Array, DType, NodeId, Op, RunOptions, Shape, Tensor, Trace, interpret};

/// Turns a node into operations of the graph; see [`Call`].
///
/// ```text
/// fn relu(call: &mut Call) -> Answer {
///     Ok(call.input(0)?.relu().into())
/// }
/// ```
pub(in crate::onnx) type Handler = fn(&mut Call) -> Answer;

/// The outputs of a node, in order, or why there are none.
pub(in crate::onnx) type Answer = Result<Outputs, Halt>;

/// The outputs of a node in order; those at the end that nobody asked for may be missing.
pub(in crate::onnx) struct Outputs(pub Vec<Value>);

impl<T: Into<Value>> From<T> for Outputs {
    fn from(value: T) -> Outputs {
        Outputs(vec![value.into()])
    }
}

impl<T: Into<Value>> From<Vec<T>> for Outputs {
    fn from(values: Vec<T>) -> Outputs {
        Outputs(values.into_iter().map(Into::into).collect())
    }
}

/// Why a node was not turned into operations.
pub(in crate::onnx) enum Halt {
    /// It is wrong, or asks for something that is not supported.
    Why(String),
    /// It depends on a node that was refused, which is reported already.
    Skipped,
    /// It needs data that only a run can give: the program ends here.
    Stop(Stop),
}

/// What must be computed before the trace can go on.
#[derive(Clone)]
pub(in crate::onnx) struct Stop {
    /// What the host needs, in the trace that stopped.
    pub needs: Vec<NodeId>,
    /// What it makes of them; without a function the one value itself is what the trace must know.
    pub function: Option<HostCode>,
    /// The node that asked, for messages.
    pub node: String,
}

/// Rust code that runs between two programs.
pub(in crate::onnx) type HostCode = std::sync::Arc<dyn Fn(&[Array]) -> Result<Vec<Array>, String> + Send + Sync>;

impl From<String> for Halt {
    fn from(why: String) -> Halt {
        Halt::Why(why)
    }
}

impl From<&str> for Halt {
    fn from(why: &str) -> Halt {
        Halt::Why(why.to_owned())
    }
}

impl From<striate_graph::Error> for Halt {
    fn from(error: striate_graph::Error) -> Halt {
        Halt::Why(error.to_string())
    }
}

/// What the programs so far have made known.
#[derive(Clone, Debug)]
pub(in crate::onnx) enum Learnt {
    /// The data of a value.
    Value(Array),
    /// Shapes and types of what the host made.
    Made(Vec<(Shape, DType)>),
}

/// Answers questions for values of a run, in the order in which they are asked.
#[derive(Default)]
pub(in crate::onnx) struct Oracle {
    pub learnt: Vec<Learnt>,
    pub asked: usize,
    /// Number of nodes of the trace when the last question was answered: all before has been computed by earlier programs.
    pub computed: usize,
}

/// One node that is being turned into operations.
pub(in crate::onnx) struct Call<'a> {
    /// The node's name, or what stands for it.
    pub name: &'a str,
    /// The operator.
    pub op: &'a str,
    /// The version of the operators.
    pub opset: i64,
    pub attributes: Attributes<'a>,
    /// Where operations are recorded.
    pub trace: Trace,
    pub inputs: Vec<Option<Value>>,
    /// Number of outputs that have a name.
    pub outputs: usize,
    pub external: &'a ExternalData,
    pub oracle: &'a mut Oracle,
    /// Number of nodes of the trace when the node was begun.
    pub begun: usize,
}

impl Call<'_> {
    /// True where the input is given.
    pub fn has(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(Option::is_some)
    }

    /// An input that must be there.
    pub fn value(&self, index: usize) -> Result<Value, Halt> {
        let found = self.inputs.get(index).cloned().flatten();
        found.ok_or_else(|| Halt::Why(format!("input {index} is missing")))
    }

    /// An input that must be there, as a value of the trace.
    pub fn input(&self, index: usize) -> Result<Tensor, Halt> {
        Ok(self.value(index)?.tensor(&self.trace))
    }

    /// An input that may be absent.
    pub fn optional(&self, index: usize) -> Option<Tensor> {
        self.inputs.get(index)?.as_ref().map(|value| value.tensor(&self.trace))
    }

    /// All inputs, none of them absent.
    pub fn all(&self) -> Result<Vec<Tensor>, Halt> {
        (0..self.inputs.len()).map(|index| self.input(index)).collect()
    }

    /// The data of an input. What follows from constants and cells is computed here; what follows from the model's inputs ends the
    /// program, and the trace goes on when it has run.
    pub fn known(&mut self, index: usize) -> Result<Array, Halt> {
        let value = self.value(index)?;
        if let Some(array) = value.data() {
            return Ok(array.clone());
        }
        if let Some(cell) = value.parameter() {
            return Ok(cell.array());
        }
        let tensor = value.tensor(&self.trace);
        if let Some(array) = fixed(&self.trace, tensor.id())? {
            value.learn(array.clone());
            return Ok(array);
        }
        match self.answer(vec![tensor.id()], None)? {
            Learnt::Value(array) => {
                value.learn(array.clone());
                Ok(array)
            }
            Learnt::Made(_) => Err("another answer came than was asked for".into()),
        }
    }

    fn answer(&mut self, needs: Vec<NodeId>, function: Option<HostCode>) -> Result<Learnt, Halt> {
        let answer = self.oracle.learnt.get(self.oracle.asked).cloned();
        let Some(answer) = answer else {
            return Err(Halt::Stop(Stop { needs, function, node: format!("`{}` ({})", self.name, self.op) }));
        };
        self.oracle.asked += 1;
        self.oracle.computed = self.begun;
        Ok(answer)
    }

    /// Whole numbers that an input holds.
    pub fn ints(&mut self, index: usize) -> Result<Vec<i64>, Halt> {
        Ok(self.known(index)?.to_i64_vec())
    }

    /// Numbers that an input holds.
    pub fn floats(&mut self, index: usize) -> Result<Vec<f64>, Halt> {
        Ok(self.known(index)?.to_f64_vec())
    }

    /// The one number that an input holds.
    pub fn number(&mut self, index: usize) -> Result<f64, Halt> {
        let array = self.known(index)?;
        array.item().map_err(|_| Halt::Why(format!("input {index} has shape {}, it must be one number", array.shape())))
    }

    /// What `code` makes of some inputs: for operators whose output's shape depends on values. Where the inputs are known it is called
    /// at once, else between two programs; the results are then inputs of the next.
    pub fn host<F>(&mut self, inputs: &[usize], code: F) -> Result<Vec<Value>, Halt>
    where
        F: Fn(&[Array]) -> Result<Vec<Array>, String> + Send + Sync + 'static,
    {
        let values = inputs.iter().map(|&index| self.value(index)).collect::<Result<Vec<_>, _>>()?;
        let data = |value: &Value| value.data().cloned().or_else(|| value.parameter().map(|cell| cell.array()));
        if let Some(arrays) = values.iter().map(data).collect::<Option<Vec<Array>>>() {
            return Ok(code(&arrays)?.into_iter().map(Value::known).collect());
        }
        let needs = values.iter().map(|value| value.tensor(&self.trace).id()).collect();
        let place = self.oracle.asked;
        match self.answer(needs, Some(std::sync::Arc::new(code)))? {
            Learnt::Made(made) => {
                let input = |(index, (shape, dtype)): (usize, &(Shape, DType))| {
                    Value::traced(self.trace.input(&made_name(place, index), shape, *dtype))
                };
                Ok(made.iter().enumerate().map(input).collect())
            }
            Learnt::Value(_) => Err("another answer came than was asked for".into()),
        }
    }

    /// The attribute `axis` as an index below `rank`.
    pub fn axis(&self, otherwise: i64, rank: usize) -> Result<usize, Halt> {
        axis_of(self.attributes.int("axis", otherwise), rank)
    }

    /// Whole numbers that stand in an input, or, in older versions, in an attribute; `None` where they stand in neither.
    pub fn list(&mut self, index: usize, attribute: &str) -> Result<Option<Vec<i64>>, Halt> {
        match (self.attributes.ints(attribute), self.has(index)) {
            (Some(list), _) => Ok(Some(list.to_vec())),
            (None, true) => self.ints(index).map(Some),
            (None, false) => Ok(None),
        }
    }

    /// Records an operation.
    pub fn push(&self, op: Op, inputs: &[&Tensor]) -> Tensor {
        self.trace.push(op, inputs)
    }
}

/// The name of the input that stands for what the host made.
pub(super) fn made_name(place: usize, index: usize) -> String {
    format!("made.{place}.{index}")
}

/// An axis counted from either end, as an index.
pub(in crate::onnx) fn axis_of(axis: i64, rank: usize) -> Result<usize, Halt> {
    let index = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    let found = usize::try_from(index).ok().filter(|&index| index < rank);
    found.ok_or_else(|| Halt::Why(format!("axis {axis} of a value with {rank} axes")))
}

/// A size out of the model.
pub(in crate::onnx) fn size_of(value: i64) -> Result<usize, Halt> {
    usize::try_from(value).map_err(|_| Halt::Why(format!("a size of {value}")))
}

/// The data of a value that follows from constants and cells alone.
fn fixed(trace: &Trace, id: NodeId) -> Result<Option<Array>, Halt> {
    let graph = trace.with_graph(|graph| {
        let mut needed = vec![false; id.index() + 1];
        needed[id.index()] = true;
        for index in (0..=id.index()).rev() {
            if !needed[index] {
                continue;
            }
            let node = &graph.nodes[index];
            let is_source = matches!(node.op, Op::Constant(_) | Op::Parameter { .. });
            if node.inputs.is_empty() && !is_source {
                return None;
            }
            node.inputs.iter().for_each(|input| needed[input.index()] = true);
        }
        Some(graph.before(&[id]))
    });
    let Some(graph) = graph else { return Ok(None) };
    let mut outputs = interpret(&graph, &[], &RunOptions::default())?;
    Ok(outputs.pop())
}
