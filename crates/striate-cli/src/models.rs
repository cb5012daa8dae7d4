//! `striate models`.

use crate::failure::Failure;
use crate::inspect::macs;
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::table::{grouped, shape, short, table};
use clap::Args;
use striate::graph::Mode;
use striate::vision::models::families;

/// List the nets of the registry by family, with parameters, multiply-adds and input size.
#[derive(Args, Debug)]
pub struct ModelsArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the verb.
pub fn run(args: &ModelsArgs) -> Result<(), Failure> {
    let json = args.output.choose() == Output::Json;
    let mut rows = Vec::new();
    for family in families() {
        if !json {
            rows.push(vec![format!("{}:", family.name)]);
        }
        for spec in family.models {
            let net = spec.structure(spec.input, spec.classes)?;
            let [c, h, w] = spec.input;
            let graph = net.graph(Mode::Eval, &[1, c, h, w])?;
            let macs: u64 = graph.nodes.iter().map(|node| macs(&graph, node)).sum();
            let parameters = net.num_parameters();
            if json {
                print_json(&serde_json::json!({
                    "name": spec.name, "family": family.name, "task": spec.task, "parameters": parameters, "macs": macs,
                    "input": spec.input, "classes": spec.classes, "summary": spec.summary,
                    "preprocess": spec.preprocess(spec.input),
                }));
            }
            rows.push(vec![
                format!("  {}", spec.name),
                grouped(parameters as u64),
                short(macs),
                shape(&spec.input),
                spec.classes.to_string(),
                spec.summary.to_owned(),
            ]);
        }
    }
    if !json {
        print_line(&table(&["name", "parameters", "MACs", "input", "classes", ""], &rows, &[0, 5]));
    }
    Ok(())
}
