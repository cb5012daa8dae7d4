//! `striate models`.

use crate::failure::Failure;
use crate::inspect::macs;
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::table::{grouped, shape, short, table};
use clap::Args;
use striate::graph::Graph;
use striate::graph::Mode;
use striate::vision::models::detection::{Detector, detectors, detectors_on_classifiers};
use striate::vision::models::{Family, ModelSpec, families};

/// List the nets of the registry by family, with parameters, multiply-adds and input size.
#[derive(Args, Debug)]
pub struct ModelsArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// A line of the list.
struct Row {
    name: &'static str,
    summary: &'static str,
    input: [usize; 3],
    classes: usize,
    parameters: usize,
    macs: u64,
}

fn macs_of(graph: &Graph) -> u64 {
    graph.nodes.iter().map(|node| macs(graph, node)).sum()
}

fn row_of(spec: &ModelSpec) -> Result<Row, Failure> {
    let net = spec.structure(spec.input, spec.classes)?;
    let [c, h, w] = spec.input;
    let macs = macs_of(&net.graph(Mode::Eval, &[1, c, h, w])?);
    let parameters = net.num_parameters();
    Ok(Row { name: spec.name, summary: spec.summary, input: spec.input, classes: spec.classes, parameters, macs })
}

/// The object of a line; `preprocess` is null for detectors, which prepare pictures themselves.
fn tell(row: &Row, family: &str, task: &str, preprocess: serde_json::Value) {
    print_json(&serde_json::json!({
        "name": row.name, "family": family, "task": task, "parameters": row.parameters, "macs": row.macs,
        "input": row.input, "classes": row.classes, "summary": row.summary, "preprocess": preprocess,
    }));
}

fn columns(row: &Row) -> Vec<String> {
    vec![
        format!("  {}", row.name),
        grouped(row.parameters as u64),
        short(row.macs),
        shape(&row.input),
        row.classes.to_string(),
        row.summary.to_owned(),
    ]
}

fn detector_rows() -> Result<Vec<Row>, Failure> {
    let of = |spec: &striate::vision::models::detection::DetectorSpec| {
        let detector = Detector::untrained(spec.name, spec.classes)?;
        let [c, h, w] = spec.input;
        let macs = macs_of(&detector.graph([1, c, h, w])?);
        let parameters = detector.net().num_parameters();
        Ok(Row { name: spec.name, summary: spec.summary, input: spec.input, classes: spec.classes, parameters, macs })
    };
    detectors().iter().map(of).collect()
}

/// Runs the verb.
pub fn run(args: &ModelsArgs) -> Result<(), Failure> {
    let json = args.output.choose() == Output::Json;
    let mut lines = Vec::new();
    for Family { name: family, models } in families() {
        lines.push(vec![format!("{family}:")]);
        for spec in *models {
            let row = row_of(spec)?;
            if json {
                let preprocess = serde_json::json!(spec.preprocess(spec.input));
                tell(&row, family, &spec.task.to_string(), preprocess);
            }
            lines.push(columns(&row));
        }
    }
    lines.push(vec!["detection:".to_owned()]);
    for row in detector_rows()? {
        if json {
            tell(&row, "detection", "detect", serde_json::Value::Null);
        }
        lines.push(columns(&row));
    }
    if !json {
        print_line(&table(&["name", "parameters", "MACs", "input", "classes", ""], &lines, &[0, 5]));
        let patterns = detectors_on_classifiers().collect::<Vec<_>>().join(", ");
        print_line(&format!("Detectors on a classifier NAME that has maps of stride 4 to 32: {patterns}"));
    }
    Ok(())
}
