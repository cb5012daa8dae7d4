//! Writes each layer of the export's tests as an ONNX model, with an input and the output that striate computes, for
//! `tools/onnx/check_export.py` to run elsewhere: `cargo run --release -p striate-io --example onnx_layers -- DIR OPSET`.

#[path = "../tests/onnx_export/layers.rs"]
mod layers;

use layers::cases;
use std::path::Path;
use striate_graph::{Array, RunOptions, interpret};
use striate_io::onnx::{INPUT_NAME, OnnxOptions, export_graph, export_onnx, write_onnx};
use striate_io::write_npy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, opset] = &arguments[..] else { return Err("usage: onnx_layers DIR OPSET".into()) };
    let options = OnnxOptions { opset: opset.parse()?, ..OnnxOptions::default() };
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder)?;
    for (index, case) in cases().iter().enumerate().filter(|(_, case)| case.opset <= options.opset) {
        let plain: String = case.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let at = |ending: &str| folder.join(format!("{index:03}_{plain}{ending}"));
        let model = export_onnx(&*case.net, &case.sample, &options).map_err(|e| format!("{}: {e}", case.name))?;
        write_onnx(&at(".onnx"), model)?;
        for batch in [1, 3] {
            let shape = [&[batch], &case.sample[..]].concat();
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| ((i * i) as f32 * 0.37 + i as f32 * 1.3).sin() * 1.3).collect();
            let x = Array::from_vec(shape.clone(), values)?;
            let graph = export_graph(&*case.net, &shape, &options)?;
            let y = interpret(&graph, &[(INPUT_NAME, x.clone())], &RunOptions::default())?.remove(0);
            write_npy(&at(&format!(".{batch}.in.npy")), &x)?;
            write_npy(&at(&format!(".{batch}.out.npy")), &y)?;
        }
    }
    Ok(())
}
