//! `striate train`.

use crate::failure::Failure;
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::stop::stop_flag;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use striate::train::{
    Augment, ClassWeights, EpochRecord, Event, Freeze, Metrics, MixingName, OptimizerName, Reporter, ScheduleName,
    TrainConfig, TrainOptions, read_config, resume, split_figure, train,
};
use striate::vision::models::Task;
use striate::vision::transforms::Interpolation;

/// Time between two progress lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Time between two step objects of `--json`.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Train a net: on the data set inside the binary, on a named set, or on a path.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// fashion-mnist, mnist, cifar10, cifar100, or a path: a folder per class, IDX files, CIFAR binaries; images/ beside masks/ or
    /// Pascal VOC's folders, to segment; a table (CSV) of pictures with labels or numbers; COCO json, Pascal VOC xml, YOLO txt or a
    /// table with boxes, to detect. Nothing: the small real data set inside the binary, with --task detect scenes made of it.
    data: Option<String>,
    /// classify, multilabel, regress, segment or detect [default: seen from the data].
    #[arg(long)]
    task: Option<Task>,
    /// Name of the net; `striate models` lists them. Detectors also on a classifier of the list: `retinanet_resnet18_fpn`.
    #[arg(long)]
    model: Option<String>,
    /// Weights to go on from, a file or a run folder; a head for other classes is replaced. A detector also takes those of the
    /// classifier that its backbone is.
    #[arg(long, value_name = "FILE|RUN")]
    weights: Option<PathBuf>,
    /// Leave everything but the head (`backbone`) or the first N blocks as they are; with `backbone` the head learns from features
    /// that are computed once. Of a detector `backbone` is what a classifier has too: pyramid and heads learn.
    #[arg(long, value_name = "N|backbone")]
    freeze: Option<Freeze>,
    /// Leave all batch norms as they are.
    #[arg(long)]
    freeze_bn: bool,
    /// Random views of each picture whose features are kept, besides the plain one, with --freeze backbone.
    #[arg(long, value_name = "K")]
    feature_views: Option<u64>,
    /// MiB of features that are held in memory; more go through a file in the run folder [default: 2048].
    #[arg(long, value_name = "MIB")]
    feature_memory: Option<usize>,
    /// Number of epochs.
    #[arg(long)]
    epochs: Option<u64>,
    /// Pictures in a batch.
    #[arg(long)]
    batch: Option<usize>,
    /// Side of the pictures that the net sees.
    #[arg(long)]
    imgsz: Option<usize>,
    /// Learning rate at its top.
    #[arg(long)]
    lr: Option<f64>,
    /// How many times the rest's learning rate is the head's.
    #[arg(long, value_name = "X")]
    head_lr_factor: Option<f64>,
    /// Factor of the learning rate from each block to the one before it, such as 0.8.
    #[arg(long, value_name = "X")]
    layer_decay: Option<f64>,
    /// Length of the shorter side before the centre crop, which is --imgsz.
    #[arg(long, value_name = "N")]
    resize: Option<usize>,
    /// nearest, bilinear or bicubic.
    #[arg(long)]
    interpolation: Option<Interpolation>,
    /// Mean of each channel, of values from 0 to 1 [default: that of the weights, else of the data].
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', requires = "std")]
    mean: Option<Vec<f32>>,
    /// Deviation of each channel.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', requires = "mean")]
    std: Option<Vec<f32>>,
    /// sgd, adam, adamw, rmsprop or lion.
    #[arg(long)]
    optimizer: Option<OptimizerName>,
    /// Momentum of sgd and rmsprop.
    #[arg(long)]
    momentum: Option<f64>,
    /// Weight decay; norms and biases never decay.
    #[arg(long)]
    weight_decay: Option<f64>,
    /// onecycle, cosine or constant.
    #[arg(long)]
    schedule: Option<ScheduleName>,
    /// Part of the steps in which the learning rate rises.
    #[arg(long)]
    warmup: Option<f64>,
    /// Part of the target that is spread over all classes.
    #[arg(long)]
    label_smoothing: Option<f64>,
    /// Decay of an average of the weights, such as 0.999; 0 for none.
    #[arg(long)]
    ema: Option<f64>,
    /// none, shift, flip or photo.
    #[arg(long)]
    augment: Option<Augment>,
    /// none, mixup, cutmix or either.
    #[arg(long)]
    mixing: Option<MixingName>,
    /// Probability that four pictures with boxes are put together.
    #[arg(long, value_name = "P")]
    mosaic: Option<f64>,
    /// Last epochs in which pictures with boxes come alone.
    #[arg(long, value_name = "N")]
    close_mosaic: Option<u64>,
    /// Probability that another picture with boxes is laid over one.
    #[arg(long, value_name = "P")]
    mixup: Option<f64>,
    /// Probability that things of another picture are put onto one: their shapes, where the data have them, else their rectangles.
    #[arg(long, value_name = "P")]
    copy_paste: Option<f64>,
    /// Sizes between which the batches of a detector vary, from 3/4 to 5/4 of --imgsz; 1 for one.
    #[arg(long, value_name = "N")]
    multi_scale: Option<usize>,
    /// none or balanced.
    #[arg(long)]
    class_weights: Option<ClassWeights>,
    /// Largest norm of all gradients together; 0 for no clipping.
    #[arg(long)]
    clip_norm: Option<f64>,
    /// Part of the training pictures held back where the data has no val part.
    #[arg(long, value_name = "X")]
    val_fraction: Option<f64>,
    /// End after so many epochs without a better val accuracy; 0 for never.
    #[arg(long)]
    patience: Option<u64>,
    /// Key of all random numbers.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads; the result does not depend on it.
    #[arg(long)]
    threads: Option<usize>,
    /// Threads that load pictures; the result does not depend on it.
    #[arg(long)]
    workers: Option<usize>,
    /// Name of the run folder; a number is added if it is taken.
    #[arg(long)]
    name: Option<String>,
    /// Folder that holds the run folders.
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Settings in TOML, as in a run's args.toml; flags go before them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Direct convolutions only.
    #[arg(long)]
    exact: bool,
    /// Go on with the run in this folder.
    #[arg(long, value_name = "RUN", conflicts_with = "data")]
    resume: Option<PathBuf>,
    /// Seconds between checkpoints, at most 60.
    #[arg(long, value_name = "S")]
    checkpoint_seconds: Option<f64>,
    /// Steps between checkpoints.
    #[arg(long, value_name = "N")]
    checkpoint_steps: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

impl TrainArgs {
    fn config(&self) -> TrainConfig {
        TrainConfig {
            model: self.model.clone(),
            epochs: self.epochs,
            batch: self.batch,
            imgsz: self.imgsz,
            lr: self.lr,
            head_lr_factor: self.head_lr_factor,
            layer_decay: self.layer_decay,
            freeze: self.freeze,
            freeze_bn: self.freeze_bn.then_some(true),
            feature_views: self.feature_views,
            feature_memory: self.feature_memory,
            task: self.task,
            resize: self.resize,
            interpolation: self.interpolation,
            mean: self.mean.clone(),
            std: self.std.clone(),
            optimizer: self.optimizer,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            schedule: self.schedule,
            warmup: self.warmup,
            label_smoothing: self.label_smoothing,
            ema: self.ema,
            augment: self.augment,
            mixing: self.mixing,
            mosaic: self.mosaic,
            close_mosaic: self.close_mosaic,
            mixup: self.mixup,
            copy_paste: self.copy_paste,
            multi_scale: self.multi_scale,
            class_weights: self.class_weights,
            clip_norm: self.clip_norm,
            val_fraction: self.val_fraction,
            patience: self.patience,
            seed: self.seed,
            exact: self.exact.then_some(true),
            checkpoint_seconds: self.checkpoint_seconds,
            checkpoint_steps: self.checkpoint_steps,
            data: self.data.clone(),
            weights: self.weights.clone(),
            threads: self.threads,
            workers: self.workers,
            project: self.project.clone(),
            name: self.name.clone(),
        }
    }
}

/// Runs the verb.
pub fn run(args: TrainArgs, started: Instant) -> Result<(), Failure> {
    let options = TrainOptions { stop: stop_flag()?, started };
    let flags = args.config();
    let mut reporter = Progress::new(args.output.choose(), ProgressDrawTarget::stderr());
    let outcome = match &args.resume {
        Some(folder) => resume(folder, &flags, options, &mut reporter),
        None => {
            let file = args.config.as_deref().map(read_config).transpose()?;
            train(&flags.or(file.unwrap_or_default()), options, &mut reporter)
        }
    };
    reporter.end();
    outcome.map(|_| ()).map_err(Failure::from)
}

/// Shows the events of a training.
struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    shown: Instant,
}

impl Progress {
    /// `target` is where the bar is drawn, on a terminal.
    fn new(output: Output, target: ProgressDrawTarget) -> Progress {
        let style = "{msg} {bar:24} {pos}/{len} {prefix} {eta}";
        let bar = (output == Output::Terminal).then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), target);
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Progress { output, bar, shown: Instant::now() }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print_line(line)),
            None => print_line(line),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// True at most once in `every`.
    fn due(&mut self, every: Duration) -> bool {
        let due = self.shown.elapsed() >= every;
        if due {
            self.shown = Instant::now();
        }
        due
    }

    fn json(&mut self, event: &Event<'_>) {
        match event {
            Event::Note { message } => eprintln!("{message}"),
            Event::Step { batch, batches, .. } => {
                if batch == batches || self.due(JSON_EVERY) {
                    print_json(event);
                }
            }
            _ => print_json(event),
        }
    }

    fn step(&mut self, event: &Event<'_>) {
        let Event::Step { epoch, epochs, batch, batches, loss, figures, images_per_s, .. } = *event else { return };
        let named: Vec<String> = figures.iter().map(|(name, value)| shown(name, *value)).collect();
        let figures = format!("loss {loss:.4}  {}  {images_per_s:.0} images/s", named.join("  "));
        if let Some(bar) = &self.bar {
            bar.set_length(batches);
            bar.set_position(batch);
            bar.set_message(format!("epoch {epoch}/{epochs}"));
            bar.set_prefix(figures);
        } else if self.due(LINE_EVERY) {
            print_line(&format!("epoch {epoch}/{epochs}  {batch}/{batches}  {figures}"));
        }
    }
}

/// A figure with its name; those of errors are no parts of a whole.
fn shown(name: &str, value: f64) -> String {
    match name {
        "error" | "mae" | "r2" => format!("{name} {value:.4}"),
        loss if loss.ends_with("_loss") => format!("{} {value:.3}", loss.trim_end_matches("_loss")),
        _ => format!("{name} {:.2} %", 100.0 * value),
    }
}

/// Loss and figures; of a classifier's val part the first alone.
fn epoch_line(r: &EpochRecord) -> String {
    let of = |part: &str| -> Vec<String> {
        let named = r.figures.0.iter().map(|(name, value)| (split_figure(name), *value));
        let of_part = named.filter(|((of, _), _)| *of == part).map(|((_, name), value)| (name, value));
        of_part.filter(|(name, _)| *name != "top5").map(|(name, value)| format!(" {}", shown(name, value))).collect()
    };
    format!(
        "epoch {}/{}  train loss {:.4}{}  val{}{}{}  {:.1} s",
        r.epoch,
        r.epochs,
        r.train_loss,
        of("train").concat(),
        r.val_loss.map(|loss| format!(" loss {loss:.4}")).unwrap_or_default(),
        of("val").concat(),
        if r.best { " (best)" } else { "" },
        r.seconds
    )
}

fn done_lines(folder: &std::path::Path, m: &Metrics) -> String {
    format!(
        "{} ({} pictures): {}\nbest epoch {}, {:.1} s in all; weights, metrics and report in {}",
        m.split,
        m.images,
        m.summary(),
        m.best_epoch.unwrap_or(0),
        m.seconds,
        folder.display()
    )
}

impl Reporter for Progress {
    fn event(&mut self, event: &Event<'_>) {
        if self.output == Output::Json {
            return self.json(event);
        }
        match event {
            Event::Note { message } => self.line(message),
            Event::Start { folder, model, parameters, train, val, classes, batches } => self.line(&format!(
                "{model} ({parameters} parameters), {classes} classes, {train} training and {val} val pictures, {batches} steps an epoch; {}",
                folder.display()
            )),
            Event::Step { .. } => self.step(event),
            Event::Epoch(record) => {
                if let Some(bar) = &self.bar {
                    bar.reset();
                }
                self.line(&epoch_line(record));
            }
            Event::Done { folder, metrics } => self.line(&done_lines(folder, metrics)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    fn step(epoch: u64, batch: u64) -> Event<'static> {
        Event::Step {
            epoch,
            epochs: 3,
            batch,
            batches: 20,
            step: batch,
            loss: 0.5,
            figures: &[("top1", 0.25)],
            lr: 0.1,
            images_per_s: 1234.4,
        }
    }

    /// The bar is drawn at once here; on a screen it is drawn at most 20 times a second.
    fn drawn(progress: &Progress, terminal: &InMemoryTerm) -> String {
        progress.bar.as_ref().unwrap().force_draw();
        terminal.contents()
    }

    #[test]
    fn the_bar_follows_the_steps_and_is_gone_at_the_end() {
        let terminal = InMemoryTerm::new(6, 120);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let mut progress = Progress::new(Output::Terminal, target);
        progress.event(&step(1, 7));
        let first = drawn(&progress, &terminal);
        assert!(first.starts_with("epoch 1/3 ") && first.contains(" 7/20 loss 0.5000  top1 25.00 %"), "{first}");
        assert!(first.contains("1234 images/s"), "{first}");
        let filled = |line: &str| line.chars().filter(|c| *c == '█').count();
        progress.event(&step(1, 20));
        let full = drawn(&progress, &terminal);
        assert!(filled(&first) < filled(&full) && full.contains(" 20/20 "), "{full}");
        progress.event(&step(2, 1));
        let second = drawn(&progress, &terminal);
        assert!(second.starts_with("epoch 2/3 ") && second.contains(" 1/20 "), "{second}");
        assert_eq!(second.lines().count(), 1, "{second}");
        progress.end();
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn without_a_terminal_there_is_no_bar() {
        for output in [Output::Plain, Output::Json] {
            assert!(Progress::new(output, ProgressDrawTarget::stderr()).bar.is_none());
        }
    }
}
