use super::arena::Arena;
use super::profile::Profile;
use crate::plan::value::{Place, Value, ValueId};
use crate::{Array, Error, Program, Result};
use std::sync::{Arc, OnceLock};
use striate_kernels::mem::AlignedBuf;
use striate_kernels::threads::{Team, default_threads};

/// What runs a program: it owns the arena, and gives the outputs. Many sessions may share one program, and one team of
/// threads.
pub struct Session {
    pub(super) program: Arc<Program>,
    pub(super) team: Arc<Team>,
    pub(super) arena: Arena,
    /// The cells as they were when the run started. Emptied before a cell is updated, so that the update is in place.
    pub(super) cells: Vec<Array>,
    pub(super) versions: Vec<u64>,
    /// Values that are not f32.
    pub(super) hosts: Vec<Array>,
    outputs: Vec<Array>,
    /// Stands where nothing is held.
    pub(super) empty: Array,
    pub(super) seed: u64,
    pub(super) step: u64,
    pub(super) profile: Option<Profile>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Session({} steps, arena of {} bytes, {:?})",
            self.program.steps.len(),
            self.arena.len() * 4,
            self.team
        )
    }
}

/// The team that sessions share unless they are given another.
fn shared_team() -> Arc<Team> {
    static TEAM: OnceLock<Arc<Team>> = OnceLock::new();
    TEAM.get_or_init(|| Arc::new(Team::new(default_threads()))).clone()
}

impl Session {
    /// A session on the process's own team of threads.
    pub fn new(program: Arc<Program>) -> Session {
        Session::with_team(program, shared_team())
    }

    /// A session on a given team, which may be shared with others; their runs take turns.
    ///
    /// # Panics
    /// Where the team has more threads than the program was compiled for.
    pub fn with_team(program: Arc<Program>, team: Arc<Team>) -> Session {
        assert!(
            team.threads() <= program.threads,
            "a program compiled for {} threads was given a team of {}; set CompileOptions::threads",
            program.threads,
            team.threads()
        );
        let empty = Array::zeros([0], crate::DType::F32);
        let output = |(_, id): &(Arc<str>, ValueId)| {
            let value = &program.values[id.index()];
            Array::zeros(&value.shape, value.dtype)
        };
        Session {
            arena: Arena::new(AlignedBuf::zeroed(program.arena_len)),
            cells: vec![empty.clone(); program.graph.parameters.len()],
            versions: vec![0; program.graph.parameters.len()],
            hosts: vec![empty.clone(); program.hosts],
            empty,
            outputs: program.outputs.iter().map(output).collect(),
            seed: 0,
            step: 0,
            profile: None,
            program,
            team,
        }
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// The seed of the random numbers of later runs; 0 unless set.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// The step that keys the random numbers of the next run; each run adds 1.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// Starts (or stops) measuring each step.
    pub fn set_profiling(&mut self, on: bool) {
        self.profile = on.then(|| Profile::new(&self.program));
    }

    /// What has been measured.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Runs the program once. Inputs go by name; the outputs come in the order in which they were declared, taps last.
    /// Programs whose values are f32 allocate nothing here.
    ///
    /// # Errors
    /// A missing or unknown input, one of another shape or type, an index out of range, a failing host call, or a guarded
    /// loss that is not finite, in which case no cell has been updated.
    pub fn run(&mut self, inputs: &[(&str, &Array)]) -> Result<&[Array]> {
        let program = self.program.clone();
        program.check_inputs(inputs)?;
        for (slot, cell) in program.graph.parameters.iter().enumerate() {
            (self.cells[slot], self.versions[slot]) = cell.snapshot();
        }
        for (output, (_, id)) in self.outputs.iter_mut().zip(&program.outputs) {
            if let Value { place: Place::Parameter(slot), shape, .. } = &program.values[id.index()] {
                *output = self.cells[*slot].reshape(shape)?;
            }
        }
        let team = self.team.clone();
        let guard = team.enter();
        let outcome = self.run_steps(&program, inputs);
        drop(guard);
        let outcome = outcome.and_then(|()| self.collect(&program, inputs));
        // Whoever updates a cell next finds it unshared.
        self.cells.iter_mut().for_each(|cell| *cell = self.empty.clone());
        self.step += 1;
        outcome.map(|()| &self.outputs[..])
    }

    fn run_steps(&mut self, program: &Program, inputs: &[(&str, &Array)]) -> Result<()> {
        let mut profile = self.profile.take();
        let mut outcome = Ok(());
        for (index, step) in program.steps.iter().enumerate() {
            let start = profile.as_ref().map(|_| std::time::Instant::now());
            outcome = self.run_step(program, step, inputs);
            if let (Some(profile), Some(start)) = (&mut profile, start) {
                profile.add(index, start.elapsed());
            }
            if outcome.is_err() {
                break;
            }
        }
        self.profile = profile;
        outcome
    }

    /// Copies the outputs out of the arena.
    fn collect(&mut self, program: &Program, inputs: &[(&str, &Array)]) -> Result<()> {
        for (output, (_, id)) in self.outputs.iter_mut().zip(&program.outputs) {
            let value = &program.values[id.index()];
            match value.place {
                Place::Arena(span) => {
                    let target =
                        output.as_mut_slice::<f32>().ok_or_else(|| Error::Internal("an output is not f32".into()))?;
                    target.copy_from_slice(self.arena.borrows().read(span));
                }
                Place::Input(index) => *output = program.input(inputs, index)?.reshape(&value.shape)?,
                // Kept when the run started: the cell may have been updated since.
                Place::Parameter(_) => {}
                Place::Constant(index) => *output = program.constants[index].reshape(&value.shape)?,
                Place::Host(index) => *output = self.hosts[index].clone(),
                Place::Buffer { .. } => return Err(Error::Internal("a buffer without a place".into())),
            }
        }
        Ok(())
    }
}

impl Program {
    fn check_inputs(&self, given: &[(&str, &Array)]) -> Result<()> {
        let unknown = |name: &str, problem: &str| Error::Input {
            name: name.to_owned(),
            problem: problem.to_owned(),
            known: self.inputs.iter().map(|(name, ..)| name.to_string()).collect(),
        };
        for (name, shape, dtype) in &self.inputs {
            let array =
                given.iter().find(|(n, _)| *n == &**name).ok_or_else(|| unknown(name, "no array was given for it"))?.1;
            if array.shape() != shape || array.dtype() != *dtype {
                return Err(Error::Mismatch {
                    what: format!("input `{name}`"),
                    expected: shape.clone(),
                    expected_dtype: *dtype,
                    got: array.shape().clone(),
                    got_dtype: array.dtype(),
                });
            }
        }
        match given.iter().find(|(name, _)| !self.inputs.iter().any(|(known, ..)| &**known == *name)) {
            Some((name, _)) => Err(unknown(name, "the graph has no such input")),
            None => Ok(()),
        }
    }

    /// The array given for an input.
    pub(super) fn input<'a>(&self, given: &[(&str, &'a Array)], index: usize) -> Result<&'a Array> {
        let name = &*self.inputs[index].0;
        let found = given.iter().find(|(n, _)| *n == name);
        found.map(|(_, array)| *array).ok_or_else(|| Error::Internal(format!("input {name} is gone")))
    }
}
