//! What runs a graph: each fixture is run by every engine.

use crate::common::Case;
use safetensors::Dtype;
use striate::graph::{Array, CompileOptions, DType, Error, Graph, Program, RunOptions, Session, interpret};

/// Runs a graph with its inputs by name; gives the outputs and updates the cells.
pub type Run = fn(&Graph, &[(&str, Array)]) -> Result<Vec<Array>, Error>;

/// All engines, by name.
pub const ENGINES: &[(&str, Run)] = &[("interpreter", run_interpreter), ("executor", run_executor)];

fn run_interpreter(graph: &Graph, inputs: &[(&str, Array)]) -> Result<Vec<Array>, Error> {
    interpret(graph, inputs, &RunOptions::default())
}

fn run_executor(graph: &Graph, inputs: &[(&str, Array)]) -> Result<Vec<Array>, Error> {
    let program = Program::compile(graph, &CompileOptions::default())?;
    let named: Vec<(&str, &Array)> = inputs.iter().map(|(name, array)| (*name, array)).collect();
    Ok(Session::new(program).run(&named)?.to_vec())
}

/// A stored tensor as an array.
pub fn array(case: &Case, role: &str) -> Array {
    let stored = case.stored(role);
    let shape = stored.shape.clone();
    let made = match stored.dtype {
        Dtype::F32 => Array::from_vec(shape, case.f32(role).1),
        Dtype::F64 => Array::from_vec(shape, case.f64(role).1),
        Dtype::I64 => Array::from_vec(shape, case.i64(role).1),
        Dtype::BOOL => Array::from_vec(shape, stored.bytes.iter().map(|b| *b != 0).collect()),
        Dtype::U8 => Array::from_vec(shape, stored.bytes.clone()),
        Dtype::I8 => Array::from_vec(shape, stored.bytes.iter().map(|b| *b as i8).collect()),
        Dtype::I16 => Array::from_f64(shape, &whole(&stored.bytes, 2), DType::I16),
        Dtype::I32 => Array::from_f64(shape, &whole(&stored.bytes, 4), DType::I32),
        Dtype::F16 => Array::from_f64(shape, &halves(&stored.bytes, 10), DType::F16),
        Dtype::BF16 => Array::from_f64(shape, &halves(&stored.bytes, 7), DType::BF16),
        other => panic!("{}/{}: {role} is {other:?}", case.family, case.name),
    };
    made.unwrap_or_else(|e| panic!("{}/{}: {role}: {e}", case.family, case.name))
}

/// Little-endian signed numbers of `size` bytes.
fn whole(bytes: &[u8], size: usize) -> Vec<f64> {
    let number = |chunk: &[u8]| {
        let value = chunk.iter().rev().fold(0i64, |sum, byte| sum << 8 | i64::from(*byte));
        let shift = 64 - 8 * size as u32;
        (value << shift >> shift) as f64
    };
    bytes.chunks_exact(size).map(number).collect()
}

/// 16-bit floats with so many bits of fraction.
fn halves(bytes: &[u8], fraction: u32) -> Vec<f64> {
    let number = |chunk: &[u8]| {
        let bits = u16::from_le_bytes([chunk[0], chunk[1]]);
        let exponent_bits = 15 - fraction;
        let exponent = i32::from(bits >> fraction & ((1 << exponent_bits) - 1));
        let part = f64::from(bits & ((1 << fraction) - 1)) / f64::from(1u32 << fraction);
        let bias = (1 << (exponent_bits - 1)) - 1;
        let size = match exponent {
            0 => part * 2f64.powi(1 - bias),
            _ => (1.0 + part) * 2f64.powi(exponent - bias),
        };
        if bits >> 15 == 1 { -size } else { size }
    };
    bytes.chunks_exact(2).map(number).collect()
}

/// Compares a result with a role of the case; says which engine.
pub fn check(engine: &str, case: &Case, role: &str, got: &Array, limit: f64) -> Result<(), String> {
    if case.stored(role).dtype != Dtype::F32 {
        let want = array(case, role);
        return match want.bits_eq(got) {
            true => Ok(()),
            false => Err(format!("{engine}: {}/{}: {role}: {got} instead of {want}", case.family, case.name)),
        };
    }
    let values = got.f32s().map_err(|e| format!("{engine}: {}/{}: {role}: {e}", case.family, case.name))?;
    case.check_close(role, got.shape(), values, limit).map_err(|e| format!("{engine}: {e}"))
}
