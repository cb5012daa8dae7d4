//! Value and gradients of every loss.

use crate::common::{Case, load_family};
use crate::engine::{ENGINES, Run, array, check};
use crate::report;
use striate::graph::{Array, Error, Mode, Tensor, Trace, gradients_from};
use striate::nn::loss::{
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, KLDivLoss, L1Loss, MSELoss, NLLLoss, Reduction,
    SigmoidFocalLoss, SmoothL1Loss,
};

const LIMIT: f64 = 1e-5;

fn weight(case: &Case, name: &str) -> Option<Array> {
    let role = format!("arg/{name}");
    case.has(&role).then(|| array(case, &role))
}

fn record(case: &Case, x: &Tensor, target: &Tensor) -> Option<Tensor> {
    let args = &case.args;
    let number = |name: &str, default: f64| args[name].as_f64().unwrap_or(default);
    let ignored = args["ignore_index"].as_i64().unwrap_or(-100);
    let batch_mean = args["reduction"] == "batchmean";
    let reduction = match args["reduction"].as_str()? {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        _ => Reduction::Mean,
    };
    macro_rules! weighted {
        ($loss:expr, $($name:ident),*) => {{
            let mut loss = $loss.reduction(reduction);
            $(if let Some(array) = weight(case, stringify!($name)) {
                loss = loss.$name(array);
            })*
            loss
        }};
    }
    Some(match case.layer.as_str() {
        "CrossEntropyLoss" => weighted!(CrossEntropyLoss::new(), weight)
            .ignore_index(ignored)
            .label_smoothing(number("label_smoothing", 0.0))
            .call(x, target),
        "NLLLoss" => weighted!(NLLLoss::new(), weight).ignore_index(ignored).call(x, target),
        "BCELoss" => weighted!(BCELoss::new(), weight).call(x, target),
        "BCEWithLogitsLoss" => weighted!(BCEWithLogitsLoss::new(), weight, pos_weight).call(x, target),
        "MSELoss" => MSELoss::new().reduction(reduction).call(x, target),
        "L1Loss" => L1Loss::new().reduction(reduction).call(x, target),
        "SmoothL1Loss" => SmoothL1Loss::new().beta(number("beta", 1.0)).reduction(reduction).call(x, target),
        "HuberLoss" => HuberLoss::new().delta(number("delta", 1.0)).reduction(reduction).call(x, target),
        "KLDivLoss" => {
            let loss = KLDivLoss::new().log_target(args["log_target"] == true).reduction(reduction);
            if batch_mean { loss.batch_mean().call(x, target) } else { loss.call(x, target) }
        }
        "sigmoid_focal_loss" => SigmoidFocalLoss::new()
            .alpha(number("alpha", 0.25))
            .gamma(number("gamma", 2.0))
            .reduction(reduction)
            .call(x, target),
        _ => return None,
    })
}

fn run_case(engine: &str, run: Run, case: &Case) -> Result<Vec<String>, Error> {
    let trace = Trace::new(Mode::Train);
    let (x, target, dy) = (array(case, "x"), array(case, "target"), array(case, "dy"));
    let input = trace.input("x", x.shape(), x.dtype());
    let goal = trace.input("target", target.shape(), target.dtype());
    let Some(y) = record(case, &input, &goal) else {
        return Ok(vec![format!("{}/{}: no loss {}", case.family, case.name, case.layer)]);
    };
    let cotangent = trace.input("dy", dy.shape(), dy.dtype());
    let float_target = case.has("dtarget");
    let wrt = if float_target { vec![&input, &goal] } else { vec![&input] };
    let gradients = gradients_from(&[&y], &[&cotangent], &wrt)?;
    let outputs: Vec<(&str, &Tensor)> =
        ["y", "dx", "dtarget"].into_iter().zip(std::iter::once(&y).chain(&gradients)).collect();
    let graph = trace.clone().finish(&outputs)?;
    let results = run(&graph, &[("x", x), ("target", target), ("dy", dy)])?;
    let checks = outputs.iter().zip(&results).map(|((role, _), got)| check(engine, case, role, got, LIMIT));
    Ok(checks.filter_map(Result::err).collect())
}

#[test]
fn losses() {
    let cases = load_family("losses");
    let mut failures = Vec::new();
    for (engine, run) in ENGINES {
        for case in &cases {
            match run_case(engine, *run, case) {
                Ok(found) => failures.extend(found),
                Err(error) => failures.push(format!("{engine}: {}: {error}", case.name)),
            }
        }
    }
    report("losses", cases.len(), &failures);
}
