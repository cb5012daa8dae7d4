//! The sequences of every schedule.

use crate::common::{Case, load_family};
use crate::report;
use serde_json::Value;
use striate::nn::optim::{Anneal, LrScheduler, OneCycleLR, PlateauMode, ReduceLROnPlateau, Schedule, ThresholdMode};

fn numbers(value: &Value) -> Vec<f64> {
    match value.as_array() {
        Some(all) => all.iter().filter_map(Value::as_f64).collect(),
        None => value.as_f64().into_iter().collect(),
    }
}

fn schedule(layer: &str, args: &Value) -> Option<Schedule> {
    let number = |name: &str| args[name].as_f64().unwrap_or(f64::NAN);
    let count = |name: &str| args[name].as_u64().unwrap_or(0);
    let counts = |name: &str| args[name].as_array().map(|a| a.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
    let inner = || -> Option<Vec<Schedule>> {
        args["schedulers"].as_array()?.iter().map(|s| schedule(s["layer"].as_str()?, &s["args"])).collect()
    };
    Some(match layer {
        "constant" => Schedule::Constant,
        "ConstantLR" => Schedule::ConstantLR { factor: number("factor"), total_iters: count("total_iters") },
        "StepLR" => Schedule::StepLR { step_size: count("step_size"), gamma: number("gamma") },
        "MultiStepLR" => Schedule::MultiStepLR { milestones: counts("milestones")?, gamma: number("gamma") },
        "ExponentialLR" => Schedule::ExponentialLR { gamma: number("gamma") },
        "CosineAnnealingLR" => Schedule::CosineAnnealingLR { t_max: count("T_max"), eta_min: number("eta_min") },
        "PolynomialLR" => Schedule::PolynomialLR { total_iters: count("total_iters"), power: number("power") },
        "LinearLR" => Schedule::LinearLR {
            start_factor: number("start_factor"),
            end_factor: number("end_factor"),
            total_iters: count("total_iters"),
        },
        "OneCycleLR" => Schedule::OneCycleLR(one_cycle(args)),
        "SequentialLR" => Schedule::SequentialLR { schedules: inner()?, milestones: counts("milestones")? },
        "ChainedScheduler" => Schedule::ChainedScheduler { schedules: inner()? },
        _ => return None,
    })
}

fn one_cycle(args: &Value) -> OneCycleLR {
    let number = |name: &str| args[name].as_f64().unwrap_or(f64::NAN);
    let total = args["total_steps"]
        .as_u64()
        .unwrap_or_else(|| args["epochs"].as_u64().unwrap_or(0) * args["steps_per_epoch"].as_u64().unwrap_or(0));
    OneCycleLR {
        max_lr: numbers(&args["max_lr"]),
        total_steps: total,
        pct_start: number("pct_start"),
        anneal: if args["anneal_strategy"] == "linear" { Anneal::Linear } else { Anneal::Cos },
        cycle_momentum: args["cycle_momentum"] == true,
        base_momentum: number("base_momentum"),
        max_momentum: number("max_momentum"),
        div_factor: number("div_factor"),
        final_div_factor: number("final_div_factor"),
        three_phase: args["three_phase"] == true,
    }
}

fn plateau(args: &Value, base: &[f64]) -> ReduceLROnPlateau {
    let number = |name: &str| args[name].as_f64().unwrap_or(f64::NAN);
    let mode = if args["mode"] == "max" { PlateauMode::Max } else { PlateauMode::Min };
    let threshold_mode = if args["threshold_mode"] == "abs" { ThresholdMode::Abs } else { ThresholdMode::Rel };
    let mut plateau = ReduceLROnPlateau::new(mode, base);
    plateau.factor = number("factor");
    plateau.patience = args["patience"].as_u64().unwrap_or(0);
    plateau.threshold = number("threshold");
    plateau.threshold_mode = threshold_mode;
    plateau.cooldown = args["cooldown"].as_u64().unwrap_or(0);
    plateau.min_lr = numbers(&args["min_lr"]);
    plateau.eps = number("eps");
    plateau
}

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() <= 1e-12 * want.abs().max(1e-3)
}

/// Compares rates `[steps, groups]` (or `[steps]`), taking up the state of a fresh schedule in the middle.
fn run_case(case: &Case) -> Result<(), String> {
    let base = numbers(&case.json["base_lr"]);
    let (shape, want) = case.f64("lr");
    let (steps, groups) = (shape[0], shape.get(1).copied().unwrap_or(1));
    let check = |step: usize, got: &[f64]| {
        let want = &want[step * groups..(step + 1) * groups];
        match got.len() == groups && got.iter().zip(want).all(|(g, w)| close(*g, *w)) {
            true => Ok(()),
            false => Err(format!("{}: step {step}: {got:?} instead of {want:?}", case.name)),
        }
    };
    let failed = |e: striate::nn::Error| format!("{}: {e}", case.name);
    if case.layer == "ReduceLROnPlateau" {
        let metric = case.f64("metric").1;
        let mut running = plateau(&case.args, &base);
        for (step, metric) in metric.into_iter().enumerate() {
            check(step, running.lrs())?;
            running.step(metric);
            let state = running.state();
            running = plateau(&case.args, &base);
            running.set_state(&state).map_err(failed)?;
        }
        return Ok(());
    }
    let plan = schedule(&case.layer, &case.args).ok_or_else(|| format!("{}: no schedule {}", case.name, case.layer))?;
    let mut running = LrScheduler::new(plan.clone(), &base).map_err(failed)?;
    for step in 0..steps {
        check(step, running.lrs())?;
        if let (Schedule::OneCycleLR(cycle), true) =
            (&plan, case.has("momentum") && case.args["cycle_momentum"] == true)
        {
            let (shape, all) = case.f64("momentum");
            let want = all[step * shape.get(1).copied().unwrap_or(1)];
            let got = cycle.momentum(step as u64);
            if !close(got, want) {
                return Err(format!("{}: step {step}: momentum {got} instead of {want}", case.name));
            }
        }
        running.step();
        let state = running.state();
        running = LrScheduler::new(plan.clone(), &base).map_err(failed)?;
        running.set_state(&state).map_err(failed)?;
    }
    Ok(())
}

#[test]
fn schedules() {
    let cases = load_family("schedules");
    let failures: Vec<String> = cases.iter().filter_map(|case| run_case(case).err()).collect();
    report("schedules", cases.len(), &failures);
}
