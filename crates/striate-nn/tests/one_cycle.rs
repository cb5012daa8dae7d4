//! A one-cycle schedule with the momentum that goes against it, beside PyTorch's numbers.

use striate_graph::{Array, CompileOptions, Mode, Parameter, Program, RunOptions, Session, Trace, interpret};
use striate_nn::optim::{AdamW, LrScheduler, OneCycleLR, Optimizer, RMSprop, SGD, Schedule};

/// Eight steps on `sum(a p²)`, by a compiled program or by the interpreter.
fn steps(make: impl Fn(Parameter) -> Optimizer, compiled: bool) -> Vec<f32> {
    let p = Parameter::new(Array::from_vec([3], vec![1f32, -2.0, 0.5]).unwrap());
    p.set_name("p");
    let mut optimizer = make(p.clone());
    let trace = Trace::new(Mode::Train);
    let a = trace.constant(Array::from_vec([3], vec![1f32, 3.0, 0.2]).unwrap());
    let loss = (a * trace.parameter(&p).square()).sum_all();
    optimizer.minimize(&loss).unwrap();
    let graph = trace.finish(&[("loss", &loss)]).unwrap();
    let mut session = Session::new(Program::compile(&graph, &CompileOptions::default()).unwrap());
    let mut schedule = LrScheduler::new(Schedule::OneCycleLR(OneCycleLR::new(0.1, 8)), &optimizer.lrs()).unwrap();
    for _ in 0..8 {
        schedule.apply(&mut optimizer);
        let hyper = optimizer.hyper_inputs();
        let inputs: Vec<(&str, Array)> = hyper.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
        if compiled {
            let given: Vec<(&str, &Array)> = hyper.iter().map(|(name, array)| (name.as_str(), array)).collect();
            session.run(&given).unwrap();
        } else {
            interpret(&graph, &inputs, &RunOptions::default()).unwrap();
        }
        schedule.step();
    }
    p.array().f32s().unwrap().to_vec()
}

#[test]
fn momentum_is_cycled_as_in_pytorch() {
    type Make = fn(Parameter) -> Optimizer;
    // torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8), torch 2.x, lr 0.1 and momentum 0.9.
    let cases: [(Make, [f32; 3]); 4] = [
        (|p| SGD::new(0.1).momentum(0.9).over(vec![p]), [-0.4168735, 1.1354258, 0.30340034]),
        (|p| SGD::new(0.1).momentum(0.9).nesterov(true).over(vec![p]), [-0.37124652, 0.25454766, 0.27160126]),
        (|p| AdamW::new(0.1).over(vec![p]), [0.68314755, -1.6769952, 0.1920174]),
        (|p| RMSprop::new(0.1).momentum(0.9).over(vec![p]), [-1.0501355, 1.9267411, -0.25037032]),
    ];
    for (index, (make, wanted)) in cases.into_iter().enumerate() {
        for compiled in [false, true] {
            for (got, want) in steps(make, compiled).into_iter().zip(wanted) {
                assert!((got - want).abs() <= 2e-6 * want.abs().max(1.0), "case {index}: {got} instead of {want}");
            }
        }
    }
}

#[test]
fn without_a_cycle_the_momentum_stays() {
    let cycle = OneCycleLR { cycle_momentum: false, ..OneCycleLR::new(0.1, 8) };
    let schedule = LrScheduler::new(Schedule::OneCycleLR(cycle), &[0.1]).unwrap();
    assert_eq!(schedule.momentum(), None);
    let p = Parameter::new(Array::full([1], 1f32));
    let mut optimizer = SGD::new(0.1).momentum(0.9).over(vec![p]);
    schedule.apply(&mut optimizer);
    let hyper = optimizer.hyper_inputs().remove(0).1;
    assert_eq!(hyper.f32s().unwrap()[3], 0.9);
}
