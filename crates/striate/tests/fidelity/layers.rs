//! Output, input gradient, parameter gradients and running statistics of every layer.

use crate::build;
use crate::common::{Case, load_family};
use crate::engine::{ENGINES, Run, array, check};
use crate::report;
use striate::graph::{Mode, Parameter, Tensor, Trace, gradients_from};
use striate::nn::{Module, StateDict};

/// Relative to the root mean square of PyTorch's float64 results; three times PyTorch's own error is allowed too.
const LIMIT: f64 = 1e-5;

fn output_size(case: &Case) -> Option<[usize; 2]> {
    let size = case.json["call"]["output_size"].as_array()?;
    Some([size[0].as_u64()? as usize, size[1].as_u64()? as usize])
}

/// What a layer is, and how its forward is recorded: the output, and indices where it returns them.
struct Layer {
    module: Box<dyn Module>,
}

impl Layer {
    fn of(case: &Case) -> Result<Layer, String> {
        let module = build::build(&case.layer, &case.args);
        let module = module.ok_or_else(|| format!("{}/{}: no layer {}", case.family, case.name, case.layer))?;
        Ok(Layer { module })
    }
}

/// Layers whose call gives or takes more than one tensor are recorded by their own methods.
fn record(case: &Case, layer: &Layer, trace: &Trace, x: &Tensor) -> (Tensor, Option<Tensor>) {
    let indexed = case.args["return_indices"].as_bool() == Some(true);
    match case.layer.as_str() {
        "MaxPool2d" if indexed => pair(build::max_pool2d(&case.args).call_with_indices(x)),
        "MaxPool1d" if indexed => pair(build::max_pool1d(&case.args).call_with_indices(x)),
        "AdaptiveMaxPool2d" if indexed => pair(build::adaptive_max_pool2d(&case.args).call_with_indices(x)),
        "MaxUnpool2d" => {
            let indices = array(case, "indices");
            let indices = trace.input("indices", indices.shape(), indices.dtype());
            (build::max_unpool2d(&case.args).call_with_indices(x, &indices, output_size(case)), None)
        }
        _ => (layer.module.call(x), None),
    }
}

fn pair((y, indices): (Tensor, Tensor)) -> (Tensor, Option<Tensor>) {
    (y, Some(indices))
}

fn load(case: &Case, module: &dyn Module) -> Result<(), String> {
    let mut dict = StateDict::new();
    for kind in ["param", "buffer"] {
        for name in case.names_under(&format!("{kind}/")) {
            dict.insert(name.clone(), array(case, &format!("{kind}/{name}")));
        }
    }
    module.load_state_dict(&dict, true).map(drop).map_err(|e| format!("{}/{}: {e}", case.family, case.name))
}

/// Runs one case; gives every difference.
fn run_case(engine: &str, run: Run, case: &Case) -> Result<Vec<String>, String> {
    let at = |e: &dyn std::fmt::Display| format!("{engine}: {}/{}: {e}", case.family, case.name);
    if case.layer == "ConvTranspose2d"
        && let Some(size) = output_size(case)
    {
        let layer = build::conv_transpose(&case.args);
        load(case, &layer)?;
        return compare(engine, run, case, &layer, &|_, x| (layer.call_with_output_size(x, size), None))
            .map_err(|e| at(&e));
    }
    let layer = Layer::of(case)?;
    load(case, &*layer.module)?;
    compare(engine, run, case, &*layer.module, &|trace, x| record(case, &layer, trace, x)).map_err(|e| at(&e))
}

type Record<'a> = &'a dyn Fn(&Trace, &Tensor) -> (Tensor, Option<Tensor>);

fn compare(
    engine: &str,
    run: Run,
    case: &Case,
    module: &dyn Module,
    record: Record,
) -> Result<Vec<String>, striate::graph::Error> {
    let trace = Trace::new(if case.mode == "eval" { Mode::Eval } else { Mode::Train });
    let (x, dy) = (array(case, "x"), array(case, "dy"));
    let input = trace.input("x", x.shape(), x.dtype());
    let (y, indices) = record(&trace, &input);
    let cotangent = trace.input("dy", dy.shape(), dy.dtype());
    let parameters: Vec<(String, Parameter)> = module.named_parameters();
    let wrt: Vec<Tensor> = std::iter::once(input).chain(parameters.iter().map(|(_, p)| trace.parameter(p))).collect();
    let gradients = gradients_from(&[&y], &[&cotangent], &wrt.iter().collect::<Vec<_>>())?;

    let mut outputs: Vec<(String, &Tensor)> = vec![("y".into(), &y)];
    let roles = std::iter::once("dx".to_owned()).chain(parameters.iter().map(|(name, _)| format!("grad/{name}")));
    outputs.extend(roles.zip(&gradients));
    outputs.extend(indices.iter().map(|i| ("indices_out".to_owned(), i)));
    let named: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    let graph = trace.clone().finish(&named)?;

    let mut inputs = vec![("x", x), ("dy", dy)];
    if case.has("indices") {
        inputs.push(("indices", array(case, "indices")));
    }
    let results = run(&graph, &inputs)?;
    let mut failures = Vec::new();
    for ((role, _), result) in outputs.iter().zip(&results) {
        failures.extend(check(engine, case, role, result, LIMIT).err());
    }
    for (name, cell) in module.buffers() {
        let role = format!("buffer_after/{name}");
        if case.has(&role) {
            failures.extend(check(engine, case, &role, &cell.array(), LIMIT).err());
        }
    }
    // PyTorch's printed form, but for `inplace` of blocks, which ours prints where it is asked to, and for whole norms,
    // where PyTorch tells the int 2 from the float 2.0.
    if let Some(text) = case.json["repr"].as_str() {
        let shown = striate::nn::describe(module);
        if shown != text.replace("(inplace=True)", "()").replace("norm_type=2.0", "norm_type=2") {
            failures.push(format!("{}/{}: prints {shown} instead of {text}", case.family, case.name));
        }
    }
    Ok(failures)
}

fn run_family(family: &str) {
    let cases = load_family(family);
    let mut failures = Vec::new();
    for (engine, run) in ENGINES {
        for case in &cases {
            match run_case(engine, *run, case) {
                Ok(found) => failures.extend(found),
                Err(error) => failures.push(error),
            }
        }
    }
    report(family, cases.len(), &failures);
}

#[test]
fn convolutions() {
    run_family("layers_conv");
}

#[test]
fn pools() {
    run_family("layers_pool");
}

#[test]
fn norms() {
    run_family("layers_norm");
}

#[test]
fn activations() {
    run_family("layers_activation");
}

#[test]
fn resampling() {
    run_family("layers_resample");
}

#[test]
fn linear_movement_and_blocks() {
    run_family("layers_misc");
}
