use crate::{Program, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Programs by what they were compiled for (input shapes, mode, …), the least recently used forgotten first when their
/// arenas together exceed a bound.
#[derive(Debug)]
pub struct ProgramCache<K> {
    programs: HashMap<K, (Arc<Program>, u64)>,
    clock: u64,
    limit_bytes: usize,
}

impl<K: Hash + Eq + Clone> ProgramCache<K> {
    /// A cache whose programs' arenas together take at most `limit_bytes` (one program is always kept).
    pub fn new(limit_bytes: usize) -> Self {
        ProgramCache { programs: HashMap::new(), clock: 0, limit_bytes }
    }

    /// The program of a key, compiled if it is not there.
    ///
    /// # Errors
    /// What `compile` says; the cache is then unchanged.
    pub fn get(&mut self, key: &K, compile: impl FnOnce() -> Result<Arc<Program>>) -> Result<Arc<Program>> {
        self.clock += 1;
        if let Some((program, used)) = self.programs.get_mut(key) {
            *used = self.clock;
            return Ok(program.clone());
        }
        let program = compile()?;
        self.programs.insert(key.clone(), (program.clone(), self.clock));
        self.shrink(key);
        Ok(program)
    }

    fn shrink(&mut self, keep: &K) {
        while self.programs.len() > 1 && self.bytes() > self.limit_bytes {
            let others = self.programs.iter().filter(|(key, _)| *key != keep);
            match others.min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone()) {
                Some(oldest) => self.programs.remove(&oldest),
                None => return,
            };
        }
    }

    /// Bytes of all arenas.
    pub fn bytes(&self) -> usize {
        self.programs.values().map(|(program, _)| program.arena_bytes()).sum()
    }

    /// Number of programs held.
    pub fn len(&self) -> usize {
        self.programs.len()
    }

    /// True without programs.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }
}
