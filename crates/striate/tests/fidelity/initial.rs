//! Bounds and moments of initial values.

use crate::build;
use crate::common::{Case, load_family};
use crate::engine::array;
use crate::report;
use serde_json::Value;
use striate::graph::{Array, Parameter};
use striate::nn::Module;
use striate::nn::init::{self, FanMode, Nonlinearity};
use striate::vision::models::find_model;

fn nonlinearity(args: &Value, slope: &str) -> Option<Nonlinearity> {
    Some(match args["nonlinearity"].as_str()? {
        "relu" => Nonlinearity::Relu,
        "leaky_relu" => Nonlinearity::LeakyRelu { slope: args[slope].as_f64().unwrap_or(0.01) },
        "tanh" => Nonlinearity::Tanh,
        "sigmoid" => Nonlinearity::Sigmoid,
        "selu" => Nonlinearity::Selu,
        _ => Nonlinearity::Linear,
    })
}

/// Values by one of `torch.nn.init`'s functions.
fn drawn(case: &Case) -> Option<Array> {
    let args = &case.args;
    let number = |name: &str| args[name].as_f64().unwrap_or(f64::NAN);
    let shape: Vec<usize> =
        case.json["shape"].as_array()?.iter().filter_map(|v| v.as_u64().map(|n| n as usize)).collect();
    let parameter = Parameter::new(Array::full(shape, 9f32));
    let mode = || if args["mode"] == "fan_out" { FanMode::FanOut } else { FanMode::FanIn };
    let done = match case.layer.as_str() {
        "uniform_" => init::uniform_(&parameter, number("a"), number("b")),
        "normal_" => init::normal_(&parameter, number("mean"), number("std")),
        "trunc_normal_" => init::trunc_normal_(&parameter, number("mean"), number("std"), number("a"), number("b")),
        "constant_" => init::constant_(&parameter, number("val")),
        "ones_" => init::ones_(&parameter),
        "zeros_" => init::zeros_(&parameter),
        "eye_" => init::eye_(&parameter),
        "dirac_" => init::dirac_(&parameter, args["groups"].as_u64().unwrap_or(1) as usize),
        "xavier_uniform_" => init::xavier_uniform_(&parameter, number("gain")),
        "xavier_normal_" => init::xavier_normal_(&parameter, number("gain")),
        "kaiming_uniform_" => init::kaiming_uniform_(&parameter, mode(), nonlinearity(args, "a")?),
        "kaiming_normal_" => init::kaiming_normal_(&parameter, mode(), nonlinearity(args, "a")?),
        "orthogonal_" => init::orthogonal_(&parameter, number("gain")),
        "sparse_" => init::sparse_(&parameter, number("sparsity"), number("std")),
        _ => return None,
    };
    done.ok()?;
    Some(parameter.array())
}

/// Checks bounds, mean and deviation within five standard errors.
fn check_values(name: &str, values: &[f64], expected: &Value) -> Result<(), String> {
    let number = |key: &str| expected[key].as_f64();
    let (mean, n) = (values.iter().sum::<f64>() / values.len() as f64, values.len() as f64);
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    let fail = |what: &str, got: f64| Err(format!("{name}: {what} {got}, expected {expected}"));
    if let Some(value) = number("value") {
        let other = values.iter().find(|v| (**v - value).abs() > 1e-7 * value.abs());
        return other.map_or(Ok(()), |v| fail("a value", *v));
    }
    if let (Some(low), Some(high)) = (number("low"), number("high")) {
        let slack = 1e-6 * (high - low);
        if let Some(v) = values.iter().find(|v| **v < low - slack || **v > high + slack) {
            return fail("out of bounds", *v);
        }
    }
    let (Some(want_mean), Some(want_std)) = (number("mean"), number("std")) else { return Ok(()) };
    if (mean - want_mean).abs() > 5.0 * want_std / n.sqrt() {
        return fail("mean", mean);
    }
    // The standard error of a deviation is at most that of the normal distribution.
    if (std - want_std).abs() > 5.0 * want_std / (2.0 * n).sqrt() + 1e-9 {
        return fail("deviation", std);
    }
    Ok(())
}

fn check_exact(case: &Case, got: &Array) -> Result<(), String> {
    let want = array(case, "value");
    let close = want.shape() == got.shape()
        && want.to_f64_vec().iter().zip(got.to_f64_vec()).all(|(w, g)| (w - g).abs() <= 1e-6);
    if close { Ok(()) } else { Err(format!("{}: {got} instead of {want}", case.name)) }
}

/// Checks the cells that the case names.
fn check_module(case: &Case, module: &dyn Module) -> Result<(), String> {
    let shapes = case.json["shapes"].as_object().ok_or("no shapes")?;
    let dict = module.state_dict();
    for (name, shape) in shapes {
        let array = dict.get(name).ok_or_else(|| format!("{}: no {name}", case.name))?;
        if serde_json::json!(array.shape().dims()) != *shape {
            return Err(format!("{}: {name} is {} instead of {shape}", case.name, array.shape()));
        }
        check_values(&format!("{}: {name}", case.name), &array.to_f64_vec(), &case.json["expected"][name])?;
    }
    Ok(())
}

fn run_case(case: &Case) -> Result<(), String> {
    let expected = &case.json["expected"];
    if case.layer == "calculate_gain" {
        let kind = nonlinearity(&case.args, "param").ok_or("a nonlinearity")?;
        let (got, want) = (init::calculate_gain(kind), expected["gain"].as_f64().unwrap_or(f64::NAN));
        let close = (got - want).abs() <= 1e-12;
        return if close { Ok(()) } else { Err(format!("{}: {got} instead of {want}", case.name)) };
    }
    if let Some(module) = build::build(&case.layer, &case.args) {
        let known = case.json["shapes"].as_object().map_or(0, |shapes| shapes.len());
        if module.state_dict().len() != known {
            return Err(format!("{}: {} cells instead of {known}", case.name, module.state_dict().len()));
        }
        return check_module(case, &*module);
    }
    if let Some(model) = case.name.strip_prefix("model_") {
        let model = find_model(model).and_then(|spec| spec.build([3, 224, 224], 1000, 0));
        return check_module(case, &*model.map_err(|e| format!("{}: {e}", case.name))?);
    }
    let got = drawn(case).ok_or_else(|| format!("{}: no initialiser {}", case.name, case.layer))?;
    if case.has("value") {
        return check_exact(case, &got);
    }
    check_values(&case.name, &got.to_f64_vec(), expected)
}

#[test]
fn initial_values() {
    striate::nn::manual_seed(1);
    let cases = load_family("init_stats");
    let failures: Vec<String> = cases.iter().filter_map(|case| run_case(case).err()).collect();
    report("init_stats", cases.len(), &failures);
}
