//! A training loop of one's own: a net, a loss, an optimizer, a graph of one step, and a loop that runs it.
//!
//! `cargo run --release --example custom_loop`

use std::error::Error;
use striate::nn::{loss::CrossEntropyLoss, optim::SGD};
use striate::prelude::*;
use striate::vision::{data, transforms};

const BATCH: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    manual_seed(0);
    let net = sequential![
        Conv2d::new(1, 16, 3).padding(1).bias(false),
        BatchNorm2d::new(16),
        ReLU::new(),
        MaxPool2d::new(2),
        Conv2d::new(16, 32, 3).padding(1).bias(false),
        BatchNorm2d::new(32),
        ReLU::new(),
        MaxPool2d::new(2),
        Flatten::new(),
        Linear::new(32 * 7 * 7, 10),
    ];
    let optimizer = SGD::new(0.02).momentum(0.9).weight_decay(5e-4).over(net.parameters());

    // One training step as a graph: forward, loss, gradients, updates.
    let trace = Trace::new(Mode::Train);
    let images = trace.input("images", [BATCH, 1, 28, 28], DType::F32);
    let labels = trace.input("labels", [BATCH], DType::I64);
    let loss = CrossEntropyLoss::new().call(&net.call(&images), &labels);
    optimizer.minimize(&loss)?;
    let graph = trace.finish(&[("loss", &loss)])?;
    let mut step = Session::new(Program::compile(&graph, &CompileOptions::default())?);

    // The same net in evaluation mode; it reads the same parameters.
    let graph = net.graph(Mode::Eval, &[BATCH, 1, 28, 28])?;
    let mut predict = Session::new(Program::compile(&graph, &CompileOptions::default())?);

    let source = data::open_embedded()?;
    let (train, test) = (source.train.ok_or("no training part")?, source.test.ok_or("no test part")?);
    let pipeline = || transforms::Normalize::new(&[0.286], &[0.353]).map(data::Pipeline::new);
    let options = data::LoaderOptions { batch: BATCH, shuffle: true, drop_last: true, ..Default::default() };
    let mut loader = data::ImageLoader::new(train, pipeline()?, options)?;
    let options = data::LoaderOptions { batch: BATCH, drop_last: true, ..Default::default() };
    let mut test = data::ImageLoader::new(test, pipeline()?, options)?;

    for epoch in 0..5 {
        let (mut sum, mut steps) = (0.0, 0);
        for batch in loader.epoch(epoch)? {
            let batch = batch?;
            let (images, labels) = (batch.images(), batch.label_array());
            let hyper = optimizer.hyper_inputs();
            let mut inputs = vec![("images", &images), ("labels", &labels)];
            inputs.extend(hyper.iter().map(|(name, array)| (name.as_str(), array)));
            sum += step.run(&inputs)?[0].item()?;
            steps += 1;
        }
        let (mut right, mut seen) = (0, 0);
        for batch in test.epoch(0)? {
            let batch = batch?;
            let logits = &predict.run(&[("input", &batch.images())])?[0];
            let best = logits.f32s()?.chunks(10).map(|row| (0..10).fold(0, |a, b| if row[b] > row[a] { b } else { a }));
            right += best.zip(&batch.labels).filter(|(guess, label)| guess == *label).count();
            seen += batch.len();
        }
        println!("epoch {epoch}: loss {:.4}, {right} of {seen} test pictures right", sum / f64::from(steps));
    }
    Ok(())
}
