//! A graph as text and as Graphviz dot.

use crate::{Graph, Node, NodeId, Op};
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            let inputs: Vec<String> = node.inputs.iter().map(|id| format!("%{}", id.0)).collect();
            write!(f, "%{index} = {}({}) : {} {}", self.label(node), inputs.join(", "), node.dtype, node.shape)?;
            if !node.origin.layer.is_empty() {
                write!(f, "  # {}", node.origin.layer)?;
            }
            writeln!(f)?;
        }
        let outputs: Vec<String> = self.outputs.iter().map(|(name, id)| format!("{name}=%{}", id.0)).collect();
        writeln!(f, "return {}", outputs.join(", "))
    }
}

impl Graph {
    /// The graph in Graphviz's dot language: one box a node, layers as labels.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph striate {\n  node [shape=box, fontname=monospace];\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let label = format!("{}\\n{}\\n{}", self.label(node), node.shape, node.origin.layer).replace('"', "'");
            dot += &format!("  n{index} [label=\"{label}\"];\n");
            for NodeId(input) in &node.inputs {
                dot += &format!("  n{input} -> n{index};\n");
            }
        }
        for (name, NodeId(id)) in &self.outputs {
            dot += &format!("  \"{name}\" [shape=ellipse];\n  n{id} -> \"{name}\";\n");
        }
        dot + "}\n"
    }

    /// The op with what distinguishes it: names and attributes, without shapes that stand elsewhere.
    fn label(&self, node: &Node) -> String {
        match &node.op {
            Op::Input { name, .. } => format!("Input \"{name}\""),
            Op::Parameter { slot, .. } => format!("Parameter \"{}\"", self.parameters[*slot].name()),
            Op::Constant(_) => "Constant".into(),
            Op::Random { kind, stream, .. } => format!("Random {kind:?} \"{stream}\""),
            Op::Update { kind, slot, .. } => format!("Update {kind:?} \"{}\"", self.parameters[*slot].name()),
            Op::HostCall { name, .. } => format!("HostCall \"{name}\""),
            Op::HostOutput { index } => format!("HostOutput {index}"),
            Op::Conv2d(a) | Op::Conv2dInputGrad { attrs: a, .. } | Op::Conv2dWeightGrad { attrs: a, .. } => {
                let name = node.op.name();
                format!("{name} stride={:?} pads={:?} dilation={:?} groups={}", a.stride, a.pads, a.dilation, a.groups)
            }
            Op::Reduce { axes, keepdims, .. } => format!("{} axes={axes:?} keepdims={keepdims}", node.op.name()),
            Op::Transpose { perm } => format!("Transpose {perm:?}"),
            Op::Concat { axis } | Op::Softmax { axis } | Op::LogSoftmax { axis } => {
                format!("{} axis={axis}", node.op.name())
            }
            Op::Slice { starts, steps, .. } => format!("Slice starts={starts:?} steps={steps:?}"),
            Op::Pad { pads, mode } => format!("Pad {pads:?} {mode:?}"),
            Op::MatMul { trans_a, trans_b } => format!("MatMul trans_a={trans_a} trans_b={trans_b}"),
            Op::MaxPool2d(windows) | Op::AvgPool2d { windows, .. } => format!("{} {windows:?}", node.op.name()),
            Op::Resize { spec, .. } => format!("Resize {spec:?}"),
            Op::TopK { axis, k, largest } => format!("TopK axis={axis} k={k} largest={largest}"),
            Op::ScatterElements { axis, mode } => format!("ScatterElements axis={axis} {mode:?}"),
            Op::ScatterNd { mode } => format!("ScatterND {mode:?}"),
            Op::RoiAlign(spec) => format!("RoiAlign {spec:?}"),
            Op::GridSample(spec) => format!("GridSample {spec:?}"),
            op => op.name().into(),
        }
    }
}
