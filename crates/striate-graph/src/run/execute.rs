//! What each step does when it runs.

use super::arena::Borrows;
use super::random::{fill_random, random_element};
use super::session::Session;
use crate::host::call_host_function;
use crate::plan::packed::Contents;
use crate::plan::step::{Bias, ConvKernel, Kernel, NormBehind, PairKernel, Recipe, Source, Step, Weights};
use crate::plan::value::{Layout, Place, Value, ValueId};
use crate::{Array, Buffer, DType, Error, Parameter, Program, RandomKind, Result, RoiAlignSpec, UpdateKind};
use striate_kernels::affine::{AffineArgs, affine};
use striate_kernels::conv::{Epilogue, ForwardArgs, GradEpilogue, PairArgs, PairLayer};
use striate_kernels::elementwise;
use striate_kernels::mem::AlignedBuf;
use striate_kernels::norm::{self, ApplyArgs, Behind, NormGrad};
use striate_kernels::optim::{UpdateArgs, update};
use striate_kernels::reduce::reduce;
use striate_kernels::reference::RoiAlignShape;
use striate_kernels::relayout::{copy_strided, transpose};
use striate_kernels::roi::roi_align;
use striate_kernels::simd::Isa;
use striate_kernels::softmax::softmax;
use striate_kernels::standardize::{standardize, standardize_grad};
use striate_kernels::threads::Team;

/// What a step can reach, besides its own choices.
pub(super) struct Reach<'a> {
    pub program: &'a Program,
    pub inputs: &'a [(&'a str, &'a Array)],
    pub borrows: Borrows<'a>,
    pub cells: &'a [Array],
    pub versions: &'a [u64],
    pub hosts: &'a [Array],
    pub team: &'a Team,
    pub isa: Isa,
}

impl<'a> Reach<'a> {
    fn value(&self, id: ValueId) -> &'a Value {
        &self.program.values[id.index()]
    }

    /// The floats of a value.
    pub fn read(&self, id: ValueId) -> Result<&'a [f32]> {
        match self.value(id).place {
            Place::Arena(span) => Ok(self.borrows.read(span)),
            _ => self.array(id)?.f32s(),
        }
    }

    /// The array of a value that does not lie in the arena.
    fn array(&self, id: ValueId) -> Result<&'a Array> {
        Ok(match self.value(id).place {
            Place::Input(index) => self.program.input(self.inputs, index)?,
            Place::Parameter(slot) => &self.cells[slot],
            Place::Constant(index) => &self.program.constants[index],
            Place::Host(index) => &self.hosts[index],
            place => return Err(Error::Internal(format!("no array at {place:?}"))),
        })
    }

    /// A value as an array of its own shape; copied where it lies in the arena.
    fn to_array(&self, id: ValueId) -> Result<Array> {
        let value = self.value(id);
        match value.place {
            Place::Arena(span) => {
                let floats = AlignedBuf::from_slice(self.borrows.read(span));
                Array::from_buffer(&value.shape, Buffer::F32(floats))
            }
            _ => self.array(id)?.reshape(&value.shape),
        }
    }

    /// The floats of a value to write.
    pub fn write(&self, id: ValueId) -> Result<&'a mut [f32]> {
        match self.value(id).place {
            Place::Arena(span) => Ok(self.borrows.write(span)),
            place => Err(Error::Internal(format!("a step writes to {place:?}"))),
        }
    }

    fn source(&self, source: Source) -> Result<&'a [f32]> {
        match source {
            Source::Cell(slot) => self.cells[slot].f32s(),
            Source::Constant(index) => self.program.constants[index].f32s(),
        }
    }
}

impl Session {
    /// Runs one step.
    pub(super) fn run_step(&mut self, program: &Program, step: &Step, inputs: &[(&str, &Array)]) -> Result<()> {
        match &step.kernel {
            Kernel::Update { kind, slot, state } => {
                return self.run_update(program, step, inputs, (*kind, *slot, state));
            }
            Kernel::Reference(_) | Kernel::HostCall { .. } => return self.run_arrays(program, step, inputs),
            _ => {}
        }
        let (seed, run_step) = (self.seed, self.step);
        let reach = self.reach(program, inputs);
        match &step.kernel {
            Kernel::Random { kind, stream } => run_random(&reach, step.writes[0], *kind, (seed, stream), run_step),
            Kernel::Guard => {
                let value = reach.read(step.reads[0])?[0];
                if value.is_finite() {
                    return Ok(());
                }
                Err(Error::NonFinite { what: "the loss".into(), value, layer: None })
            }
            _ => run_kernel(&reach, step),
        }
    }

    fn reach<'a>(&'a mut self, program: &'a Program, inputs: &'a [(&'a str, &'a Array)]) -> Reach<'a> {
        Reach {
            program,
            inputs,
            borrows: self.arena.borrows(),
            cells: &self.cells,
            versions: &self.versions,
            hosts: &self.hosts,
            team: &self.team,
            isa: program.isa,
        }
    }

    /// Steps that work on arrays: the reference kernels, and host calls.
    fn run_arrays(&mut self, program: &Program, step: &Step, inputs: &[(&str, &Array)]) -> Result<()> {
        let reach = self.reach(program, inputs);
        let given: Vec<Array> = step.reads.iter().map(|id| reach.to_array(*id)).collect::<Result<_>>()?;
        let results = match &step.kernel {
            Kernel::HostCall { name, outputs } => call_host_function(name, &given, outputs)?,
            Kernel::Reference(node) => vec![super::evaluate(node, &given)?],
            _ => return Err(Error::Internal("not a step on arrays".into())),
        };
        for (id, result) in step.writes.iter().zip(results) {
            match program.values[id.index()].place {
                Place::Host(index) => self.hosts[index] = result,
                Place::Arena(span) => self.arena.borrows().write(span).copy_from_slice(result.f32s()?),
                place => return Err(Error::Internal(format!("a step writes to {place:?}"))),
            }
        }
        Ok(())
    }

    fn run_update(
        &mut self,
        program: &Program,
        step: &Step,
        inputs: &[(&str, &Array)],
        (kind, slot, state): (UpdateKind, usize, &[usize]),
    ) -> Result<()> {
        // Our own handles go first, so that the cells' buffers are unshared and change in place.
        let values: Vec<Array> = match program.graph.parameters[slot].dtype() {
            DType::F32 => Vec::new(),
            _ => {
                let reach = self.reach(program, inputs);
                step.reads.iter().map(|id| reach.to_array(*id)).collect::<Result<_>>()?
            }
        };
        for cell in std::iter::once(&slot).chain(state) {
            self.cells[*cell] = self.empty.clone();
        }
        let parameters = &program.graph.parameters;
        if let [value, ..] = &values[..] {
            return update_other(&parameters[slot], kind, value);
        }
        let reach = self.reach(program, inputs);
        let value = reach.read(step.reads[0])?;
        let hyper = step.reads.get(1).map_or(Ok(&[][..]), |id| reach.read(*id))?;
        let scale = step.reads.get(2).map_or(Ok(1.0), |id| reach.read(*id).map(|s| s[0]))?;
        let cells: Vec<&Parameter> = state.iter().map(|cell| &parameters[*cell]).collect();
        parameters[slot].update(|p| {
            let p = p.as_mut_slice::<f32>().ok_or_else(|| Error::Internal("an updated cell is not f32".into()))?;
            with_state(&cells, &mut Vec::new(), &mut |state| {
                update(reach.team, reach.isa, UpdateArgs { kind, hyper, scale, grad: value }, p, state);
            })
        })
    }
}

/// Opens the state cells one inside the other, and calls `run` with all their floats.
fn with_state(cells: &[&Parameter], open: &mut Vec<&mut [f32]>, run: &mut dyn FnMut(&mut [&mut [f32]])) -> Result<()> {
    let Some((first, rest)) = cells.split_first() else {
        run(open);
        return Ok(());
    };
    first.update(|array| {
        let floats = array.as_mut_slice::<f32>().ok_or_else(|| Error::Internal("a state cell is not f32".into()))?;
        let mut longer: Vec<&mut [f32]> = open.iter_mut().map(|slice| &mut **slice).collect();
        longer.push(floats);
        with_state(rest, &mut longer, run)
    })
}

/// An update of a cell that is not f32 (a counter): only `Assign` and `Accumulate` have a meaning for it.
fn update_other(cell: &Parameter, kind: UpdateKind, value: &Array) -> Result<()> {
    cell.update(|array| {
        let sum = match kind {
            UpdateKind::Assign => value.cast(array.dtype()),
            UpdateKind::Accumulate => {
                let pairs = array.to_i64_vec().into_iter().zip(value.to_i64_vec());
                Array::from_vec(array.shape(), pairs.map(|(a, b)| a.wrapping_add(b)).collect())?.cast(array.dtype())
            }
            _ => return Err(Error::DType { op: format!("{kind:?}"), dtype: array.dtype() }),
        };
        *array = sum;
        Ok(())
    })
}

/// Fills a value with random numbers, which are keyed by the place of an element in the graph's shape, not in memory.
fn run_random(reach: &Reach, to: ValueId, kind: RandomKind, key: (u64, &str), step: u64) -> Result<()> {
    let value = reach.value(to);
    let out = reach.write(to)?;
    if value.layout == Layout::Rows {
        fill_random(kind, key, step, 0, out);
        return Ok(());
    }
    let (channels, inner) = (value.shape[1], value.shape[2..].iter().product::<usize>());
    for (index, x) in out.iter_mut().enumerate() {
        let (n, rest) = (index / (channels * inner), index % (channels * inner));
        let (place, channel) = (rest / channels, rest % channels);
        *x = random_element(kind, key, step, ((n * channels + channel) * inner + place) as u64);
    }
    Ok(())
}

/// Calls `with` with packed weights (and folded bias), which are made first where they are not there.
fn with_weights(
    reach: &Reach,
    weights: &Weights,
    pack: impl Fn(&[f32], &mut [f32]),
    packed_len: usize,
    computed: (Option<ValueId>, Option<ValueId>),
    with: impl FnOnce(&[f32], &[f32]) -> Result<()>,
) -> Result<()> {
    match (weights, computed) {
        (Weights::Cached { form, recipe }, _) => {
            let mut made = Ok(());
            let make = |contents: &mut Contents| made = make_packed(reach, recipe, &pack, packed_len, contents);
            let versions: Vec<u64> = recipe
                .sources()
                .map(|source| match source {
                    Source::Cell(slot) => reach.versions[slot],
                    Source::Constant(_) => 0,
                })
                .collect();
            let outcome = form.read(&versions, make, |contents| with(&contents.weights, &contents.bias));
            made.and(outcome)
        }
        (Weights::Computed, (Some(weight), Some(to))) => {
            let packed = reach.write(to)?;
            pack(reach.read(weight)?, packed);
            with(packed, &[])
        }
        _ => Err(Error::Internal("weights without a place".into())),
    }
}

/// Packs weights, with a batch norm folded into them where the recipe has one.
fn make_packed(
    reach: &Reach,
    recipe: &Recipe,
    pack: impl Fn(&[f32], &mut [f32]),
    packed_len: usize,
    contents: &mut Contents,
) -> Result<()> {
    if contents.weights.len() != packed_len {
        contents.weights = AlignedBuf::zeroed(packed_len);
    }
    let weight = reach.source(recipe.weight)?;
    let Some(norm) = recipe.norm else {
        pack(weight, &mut contents.weights);
        return Ok(());
    };
    let [gamma, beta, mean, var] = norm.sources.map(|source| reach.source(source));
    let (gamma, beta, mean, var) = (gamma?, beta?, mean?, var?);
    let bias = recipe.bias.map(|source| reach.source(source)).transpose()?;
    let channels = gamma.len();
    // y = (w x + b - mean) / sqrt(var + eps) * gamma + beta, in f64, rounded once.
    let scale: Vec<f64> =
        (0..channels).map(|c| f64::from(gamma[c]) / (f64::from(var[c]) + f64::from(norm.eps)).sqrt()).collect();
    let per_channel = weight.len() / channels.max(1);
    let folded: Vec<f32> =
        weight.iter().enumerate().map(|(i, &w)| (f64::from(w) * scale[i / per_channel.max(1)]) as f32).collect();
    let shift = |c: usize| {
        let bias = bias.map_or(0.0, |b| f64::from(b[c]));
        (f64::from(beta[c]) + (bias - f64::from(mean[c])) * scale[c]) as f32
    };
    contents.bias = AlignedBuf::from((0..channels).map(shift).collect::<Vec<f32>>());
    pack(&folded, &mut contents.weights);
    Ok(())
}

fn run_conv(reach: &Reach, step: &Step, conv: &ConvKernel) -> Result<()> {
    let mut reads = step.reads.iter().copied();
    let mut writes = step.writes.iter().copied();
    let missing = || Error::Internal("a convolution lacks a value".into());
    let x = reach.read(reads.next().ok_or_else(missing)?)?;
    let weight = matches!(conv.weights, Weights::Computed).then(|| reads.next()).flatten();
    let bias = match conv.bias {
        Bias::Value => Some(reach.read(reads.next().ok_or_else(missing)?)?),
        Bias::None | Bias::Folded => None,
    };
    let residual = match conv.residual {
        true => Some(reach.read(reads.next().ok_or_else(missing)?)?),
        false => None,
    };
    let y = reach.write(writes.next().ok_or_else(missing)?)?;
    let stats = match conv.moments {
        true => Some(reach.write(writes.next().ok_or_else(missing)?)?),
        false => None,
    };
    let scratch = reach.write(writes.next().ok_or_else(missing)?)?;
    let plan = &conv.plan;
    let pack = |w: &[f32], packed: &mut [f32]| plan.pack(reach.team, w, packed);
    with_weights(reach, &conv.weights, pack, plan.packed_len(), (weight, writes.next()), |packed, folded| {
        let bias = if conv.bias == Bias::Folded { Some(folded) } else { bias };
        let epilogue = Epilogue { bias, residual, activation: conv.activation };
        plan.run(reach.team, ForwardArgs { x, packed, epilogue, stats, y, scratch });
        Ok(())
    })
}

fn run_pair(reach: &Reach, step: &Step, pair: &PairKernel) -> Result<()> {
    let mut reads = step.reads.iter().copied();
    let missing = || Error::Internal("a pair of convolutions lacks a value".into());
    let x = reach.read(reads.next().ok_or_else(missing)?)?;
    let mut biases = [None; 2];
    for (bias, (_, kind, _)) in biases.iter_mut().zip(&pair.layers) {
        if *kind == Bias::Value {
            *bias = Some(reach.read(reads.next().ok_or_else(missing)?)?);
        }
    }
    let (y, scratch) = (reach.write(step.writes[0])?, reach.write(step.writes[1])?);
    let (plan, lens) = (&pair.plan, pair.plan.packed_lens());
    let [(weights0, ..), (weights1, ..)] = &pair.layers;
    let pack0 = |w: &[f32], packed: &mut [f32]| plan.pack(0, reach.team, w, packed);
    let pack1 = |w: &[f32], packed: &mut [f32]| plan.pack(1, reach.team, w, packed);
    with_weights(reach, weights0, pack0, lens[0], (None, None), |packed0, folded0| {
        with_weights(reach, weights1, pack1, lens[1], (None, None), |packed1, folded1| {
            let layer = |which: usize, packed, folded| {
                let (_, kind, activation) = &pair.layers[which];
                let (kind, activation) = (*kind, *activation);
                let bias = if kind == Bias::Folded { Some(folded) } else { biases[which] };
                PairLayer { packed, bias, activation }
            };
            let layers = [layer(0, packed0, folded0), layer(1, packed1, folded1)];
            plan.run(reach.team, PairArgs { x, layers, y, scratch });
            Ok(())
        })
    })
}

fn run_kernel(reach: &Reach, step: &Step) -> Result<()> {
    let read = |index: usize| reach.read(step.reads[index]);
    let write = |index: usize| reach.write(step.writes[index]);
    match &step.kernel {
        Kernel::Conv(conv) => run_conv(reach, step, conv)?,
        Kernel::ConvPair(pair) => run_pair(reach, step, pair)?,
        Kernel::ConvInputGrad { plan, weights, residual, mask } => {
            let (dy, dx, scratch) = (read(0)?, write(0)?, write(1)?);
            let computed = (step.reads.get(1).copied(), step.writes.get(2).copied());
            let next = 1 + usize::from(matches!(weights, Weights::Computed));
            let residual = residual.then(|| read(next)).transpose()?;
            let output = |bounds| Ok::<_, Error>((read(next + usize::from(residual.is_some()))?, bounds));
            let epilogue = GradEpilogue { residual, mask: mask.map(output).transpose()? };
            let pack = |w: &[f32], packed: &mut [f32]| plan.pack(reach.team, w, packed);
            with_weights(reach, weights, pack, plan.packed_len(), computed, |packed, _| {
                plan.run(reach.team, dy, packed, epilogue, dx, scratch);
                Ok(())
            })?;
        }
        Kernel::ConvWeightGrad { plan } => plan.run(reach.team, read(0)?, read(1)?, write(0)?, write(1)?),
        _ => run_simple_kernel(reach, step)?,
    }
    Ok(())
}

/// Kernels that are one pass over their values.
fn run_simple_kernel(reach: &Reach, step: &Step) -> Result<()> {
    let read = |index: usize| reach.read(step.reads[index]);
    let write = |index: usize| reach.write(step.writes[index]);
    let (team, isa) = (reach.team, reach.isa);
    match &step.kernel {
        Kernel::Relayout { n, c, inner, to_channels_last: true } => {
            transpose(team, [*n, *c, *inner], read(0)?, write(0)?)
        }
        Kernel::Relayout { n, c, inner, to_channels_last: false } => {
            transpose(team, [*n, *inner, *c], read(0)?, write(0)?)
        }
        Kernel::Unary(kind) => elementwise::unary(team, isa, *kind, read(0)?, write(0)?),
        Kernel::UnaryGrad(kind) => elementwise::unary_grad(team, isa, *kind, (read(0)?, read(1)?), write(0)?),
        Kernel::Binary { kind, shape } => elementwise::binary(team, isa, *kind, shape, (read(0)?, read(1)?), write(0)?),
        Kernel::Reduce { kind, shape } => reduce(team, isa, (*kind, *shape), read(0)?, write(0)?, write(1)?),
        Kernel::Copy(copy) => {
            let y = write(0)?;
            if let Some(value) = copy.fill {
                y.fill(value);
            }
            copy_strided(team, &copy.dims, (read(0)?, &copy.from), (y, &copy.to));
        }
        Kernel::MaxPool(plan) => plan.forward(team, isa, read(0)?, write(0)?),
        Kernel::MaxPoolGrad(plan) => plan.backward(team, isa, (read(0)?, read(1)?), write(0)?),
        Kernel::Resample(plan) => plan.run(team, isa, read(0)?, write(0)?),
        Kernel::RoiAlign { spec, shape } => run_roi_align(reach, step, spec, *shape)?,
        Kernel::Softmax { shape, log } => softmax(team, isa, (*shape, *log), read(0)?, write(0)?),
        Kernel::Standardize { len, eps, backward: false } => {
            standardize(team, isa, (*len, *eps), read(0)?, write(0)?);
        }
        Kernel::Standardize { len, eps, backward: true } => {
            standardize_grad(team, isa, (*len, *eps), (read(0)?, read(1)?), write(0)?);
        }
        _ => run_norm_kernel(reach, step)?,
    }
    Ok(())
}

fn run_roi_align(reach: &Reach, step: &Step, spec: &RoiAlignSpec, shape: RoiAlignShape) -> Result<()> {
    let (x, regions, y) = (reach.read(step.reads[0])?, reach.read(step.reads[1])?, reach.write(step.writes[0])?);
    let batch = reach.array(step.reads[2])?;
    let batch = batch.as_slice::<i64>().ok_or_else(|| Error::Internal("the maps of regions are not i64".into()))?;
    super::interpreter::check_maps(batch, shape.n)?;
    roi_align((reach.team, reach.isa), spec, shape, (x, regions, batch), y);
    Ok(())
}

fn run_norm_kernel(reach: &Reach, step: &Step) -> Result<()> {
    let read = |index: usize| reach.read(step.reads[index]);
    let write = |index: usize| reach.write(step.writes[index]);
    let (team, isa) = (reach.team, reach.isa);
    let grad = |behind: NormBehind, (moments, more): (usize, usize), eps: f32| -> Result<NormGrad> {
        let behind = match behind {
            NormBehind::None => Behind::None,
            NormBehind::Output(bounds) => Behind::Output(read(more)?, bounds),
            NormBehind::Again(kind) => Behind::Again([read(more)?, read(more + 1)?], kind),
        };
        Ok(NormGrad { x: read(0)?, dy: read(1)?, behind, moments: read(moments)?, eps })
    };
    match &step.kernel {
        Kernel::Moments => norm::moments(team, isa, read(0)?, write(0)?, write(1)?),
        Kernel::BatchNorm { eps, residual, activation } => {
            let (gamma, beta, first) = (read(1)?, read(2)?, read(3)?);
            // Moments of the batch come as one value, given statistics as two.
            let (mean, variance, next) = match first.len() == gamma.len() {
                true => (first, read(4)?, 5),
                false => (&first[..gamma.len()], &first[gamma.len()..], 4),
            };
            let residual = if *residual { Some(read(next)?) } else { None };
            let (eps, activation) = (*eps, *activation);
            let args = ApplyArgs { x: read(0)?, gamma, beta, mean, variance, eps, residual, activation };
            norm::apply(team, isa, args, write(0)?, write(1)?);
        }
        Kernel::Affine { eps, pixels, pitches, activation } => {
            let (gamma, beta, mean, variance) = (read(1)?, read(2)?, read(3)?, read(4)?);
            let (x, eps, pixels, pitches, activation) = (read(0)?, *eps, *pixels, *pitches, *activation);
            let args = AffineArgs { x, pixels, pitches, gamma, beta, mean, variance, eps, activation };
            affine(team, isa, args, write(0)?, write(1)?);
        }
        Kernel::BatchNormGradSums { eps, behind } => {
            norm::grad_sums(team, isa, grad(*behind, (2, 3), *eps)?, write(0)?, write(1)?);
        }
        Kernel::BatchNormInputGrad { eps, behind } => {
            let given = (read(2)?, read(4)?);
            norm::input_grad(team, isa, grad(*behind, (3, 5), *eps)?, given, write(0)?, write(1)?);
        }
        kernel => return Err(Error::Internal(format!("no kernel for {kernel:?}"))),
    }
    Ok(())
}
