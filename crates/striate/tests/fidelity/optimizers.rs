//! Parameters after each of six steps of every optimizer, with groups, clipping and averaging.

use crate::common::{Case, load_family, relative_error};
use crate::engine::{ENGINES, Run, array};
use crate::report;
use serde_json::Value;
use striate::graph::{Array, DType, Error, Mode, Parameter, Tensor, Trace};
use striate::nn::optim::{Adam, AdamW, Clip, Ema, Lion, Optimizer, ParamGroup, RMSprop, Rule, SGD};
use striate::nn::{Module, Visitor, visit_fields};

const NAMES: [&str; 3] = ["conv.weight", "conv.bias", "fc.weight"];
const STEPS: usize = 6;
const LIMIT: f64 = 1e-5;

/// A rule by PyTorch's class, with the arguments of the case and then of the group.
fn rule(layer: &str, args: &[&Value]) -> Option<Rule> {
    let find = |name: &str| args.iter().rev().map(|a| &a[name]).find(|v| !v.is_null()).unwrap_or(&Value::Null);
    let number = |name: &str| find(name).as_f64().unwrap_or(0.0);
    let betas = || (find("betas")[0].as_f64().unwrap_or(0.0), find("betas")[1].as_f64().unwrap_or(0.0));
    let (lr, decay) = (number("lr"), number("weight_decay"));
    Some(match layer {
        "SGD" => SGD::new(lr)
            .weight_decay(decay)
            .momentum(number("momentum"))
            .dampening(number("dampening"))
            .nesterov(find("nesterov") == true)
            .into(),
        "Adam" => Adam::new(lr).weight_decay(decay).betas(betas()).eps(number("eps")).into(),
        "AdamW" => AdamW::new(lr).weight_decay(decay).betas(betas()).eps(number("eps")).into(),
        "RMSprop" => RMSprop::new(lr)
            .weight_decay(decay)
            .alpha(number("alpha"))
            .eps(number("eps"))
            .momentum(number("momentum"))
            .centered(find("centered") == true)
            .into(),
        "Lion" => Lion::new(lr).weight_decay(decay).betas(betas()).into(),
        _ => return None,
    })
}

/// The three parameters of the fixtures, as a module.
struct Three([Parameter; 3]);

impl Module for Three {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.clone()
    }
    fn visit(&self, visitor: &mut dyn Visitor) {
        NAMES.iter().zip(&self.0).for_each(|(name, parameter)| visitor.parameter(name, parameter));
    }
}

fn optimizer(case: &Case, net: &Three) -> Option<Optimizer> {
    let base = rule(&case.layer, &[&case.args])?;
    let groups = match case.json["groups"].as_array() {
        None => vec![ParamGroup::new(net.0.to_vec())],
        Some(groups) => groups
            .iter()
            .map(|group| {
                let names: Vec<&str> = group["params"].as_array()?.iter().filter_map(Value::as_str).collect();
                let of_name = |name: &&str| NAMES.iter().position(|n| n == name).map(|i| net.0[i].clone());
                let parameters = names.iter().map(of_name).collect::<Option<Vec<_>>>()?;
                Some(ParamGroup::new(parameters).rule(rule(&case.layer, &[&case.args, group])?))
            })
            .collect::<Option<Vec<_>>>()?,
    };
    let clip = &case.json["clip"];
    let limit = |name: &str| clip[name].as_f64().unwrap_or(f64::NAN);
    let clip = match clip["function"].as_str() {
        Some("clip_grad_norm_") => {
            Some(Clip::Norm { max: limit("max_norm"), p: clip["norm_type"].as_f64().unwrap_or(f64::INFINITY) })
        }
        Some(_) => Some(Clip::Value { max: limit("clip_value") }),
        None => None,
    };
    Some(Optimizer::new(base, groups).clip(clip))
}

/// Step `index` of an array `[6, …]`.
fn at_step(all: &Array, index: usize) -> Array {
    let shape = all.shape()[1..].to_vec();
    let size = all.numel() / STEPS;
    Array::from_vec(shape, all.f32s().expect("f32")[index * size..(index + 1) * size].to_vec()).expect("one step")
}

/// Compares step `index` of a role with the float64 run; PyTorch's own error, three times, is allowed too.
fn check(engine: &str, case: &Case, role: &str, index: usize, got: &Array) -> Result<(), String> {
    let (head, tail) = role.split_once('/').map_or((role, String::new()), |(h, t)| (h, format!("/{t}")));
    let exact = case.f64(&format!("{head}64{tail}")).1;
    let torch = case.f32(role).1;
    let size = exact.len() / STEPS;
    let part = index * size..(index + 1) * size;
    let values = got.f32s().map_err(|e| e.to_string())?;
    let (ours, theirs) =
        (relative_error(values, &exact[part.clone()]), relative_error(&torch[part.clone()], &exact[part]));
    if ours <= LIMIT.max(3.0 * theirs) {
        return Ok(());
    }
    Err(format!("{engine}: {}: {role} after step {}: {ours:.2e} off (PyTorch {theirs:.2e})", case.name, index + 1))
}

fn run_case(engine: &str, run: Run, case: &Case) -> Result<Vec<String>, Error> {
    let net = Three(NAMES.map(|name| Parameter::new(array(case, &format!("param/{name}")))));
    striate::nn::assign_names(&net);
    let Some(optimizer) = optimizer(case, &net) else {
        return Ok(vec![format!("{}: no optimizer {}", case.name, case.layer)]);
    };
    let trace = Trace::new(Mode::Train);
    let gradients: Vec<(Parameter, Tensor)> = NAMES
        .iter()
        .zip(&net.0)
        .map(|(name, p)| (p.clone(), trace.input(&format!("grad/{name}"), p.shape(), DType::F32)))
        .collect();
    let norm = optimizer.record(&trace, &gradients);
    let outputs: Vec<(&str, &Tensor)> = norm.iter().map(|n| ("norm", n)).collect();
    let graph = trace.clone().finish(&outputs)?;
    let given: Vec<(String, Array)> =
        NAMES.iter().map(|name| (format!("grad/{name}"), array(case, &format!("grad/{name}")))).collect();
    let averaged = case.has("ema/fc.weight");
    let mut ema = None;
    let mut failures = Vec::new();
    for step in 0..STEPS {
        let mut inputs = optimizer.hyper_inputs();
        inputs.extend(given.iter().map(|(name, all)| (name.clone(), at_step(all, step))));
        let named: Vec<(&str, Array)> = inputs.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
        let results = run(&graph, &named)?;
        if case.has("total_norm") {
            failures.extend(check(engine, case, "total_norm", step, &results[0]).err());
        }
        for (name, parameter) in NAMES.iter().zip(&net.0) {
            failures.extend(check(engine, case, &format!("after/{name}"), step, &parameter.array()).err());
        }
        if averaged {
            failures.extend(average(engine, run, case, &net, &mut ema, step)?);
        }
    }
    if optimizer.steps() != STEPS as u64 {
        failures.push(format!("{engine}: {}: {} steps counted", case.name, optimizer.steps()));
    }
    Ok(failures)
}

/// The average begins after the first step and then follows each step.
fn average(
    engine: &str,
    run: Run,
    case: &Case,
    net: &Three,
    ema: &mut Option<Ema>,
    step: usize,
) -> Result<Vec<String>, Error> {
    match ema {
        None => *ema = Some(Ema::new(net, 0.9)),
        Some(ema) => {
            let graph = ema.graph().expect("a graph of plain updates");
            let inputs = ema.inputs(step as u64);
            let named: Vec<(&str, Array)> = inputs.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
            run(&graph, &named)?;
        }
    }
    let dict = ema.as_ref().map(Ema::state_dict).unwrap_or_default();
    let checks = dict.iter().map(|(name, array)| check(engine, case, &format!("ema/{name}"), step, array));
    Ok(checks.filter_map(Result::err).collect())
}

#[test]
fn optimizers() {
    let cases = load_family("optimizers");
    let mut failures = Vec::new();
    for (engine, run) in ENGINES {
        for case in &cases {
            match run_case(engine, *run, case) {
                Ok(found) => failures.extend(found),
                Err(error) => failures.push(format!("{engine}: {}: {error}", case.name)),
            }
        }
    }
    report("optimizers", cases.len(), &failures);
}

/// A net of one weight, for the tests of what PyTorch has no fixture for.
struct One {
    weight: Parameter,
}

impl Module for One {
    fn forward(&self, x: &Tensor) -> Tensor {
        x * x.trace().parameter(&self.weight)
    }
    visit_fields!(weight);
}

#[test]
fn accumulated_gradients_step_as_their_mean() {
    use striate::nn::optim::GradAccumulator;
    let run = ENGINES[0].1;
    let net = One { weight: Parameter::new(Array::full([2], 1f32)) };
    striate::nn::assign_names(&net);
    let optimizer = SGD::new(0.5).over(net.parameters());
    let sums = GradAccumulator::new(&net.parameters());
    let graph = |last: bool| {
        let trace = Trace::new(Mode::Train);
        let gradient = trace.input("grad", [2], DType::F32);
        let gradients = vec![(net.weight.clone(), gradient)];
        match last {
            false => sums.record_add(&trace, &gradients),
            true => drop(optimizer.record(&trace, &sums.record_take(&trace, &gradients, 3))),
        }
        trace.finish(&[]).expect("a graph")
    };
    let given = |a: f32, b: f32| ("grad", Array::from_vec([2], vec![a, b]).expect("two"));
    let hyper = optimizer.hyper_inputs().remove(0);
    for _ in 0..2 {
        run(&graph(false), &[given(1.0, 2.0)]).expect("adds");
    }
    run(&graph(true), &[given(4.0, 2.0), (&hyper.0, hyper.1)]).expect("steps");
    assert_eq!(net.weight.array().f32s().expect("f32"), &[0.0, 0.0]);
    assert_eq!(sums.cells()[0].1.array().f32s().expect("f32"), &[0.0, 0.0]);
}
