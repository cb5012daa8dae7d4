//! Numbered jobs done by threads ahead of time and taken in order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// What a job number becomes. `S` is what a worker keeps from job to job.
type Job<T, S> = dyn Fn(u64, &mut S) -> T + Send + Sync;

/// Threads that run numbered jobs at most `depth` ahead of the one that is taken next. With no threads, a job runs when it is
/// taken. Results are the same either way, since a job's result may depend on its number alone.
pub(crate) struct OrderedQueue<T, S> {
    job: Arc<Job<T, S>>,
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    /// Of the taking thread, for work without threads.
    own: S,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something may be done now.
    work: Condvar,
    /// Something was done.
    done: Condvar,
}

struct State<T> {
    /// Counts the restarts; results of an older one are thrown away.
    generation: u64,
    /// Jobs that may be handed out: those of these ranges, in order.
    pending: VecDeque<Range<u64>>,
    /// Jobs handed out or done but not taken.
    ahead: usize,
    depth: usize,
    results: BTreeMap<u64, std::thread::Result<T>>,
    closed: bool,
}

impl<T> Shared<T> {
    /// A panic of a job is caught before, so a poisoned lock still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T: Send + 'static, S: Default + Send + 'static> OrderedQueue<T, S> {
    /// With `threads` workers and at most `depth` (at least 1) jobs ahead. Nothing runs before [`OrderedQueue::restart`].
    pub fn new(
        threads: usize,
        depth: usize,
        job: impl Fn(u64, &mut S) -> T + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let state = State {
            generation: 0,
            pending: VecDeque::new(),
            ahead: 0,
            depth: depth.max(1),
            results: BTreeMap::new(),
            closed: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() });
        let mut queue = Self { job: Arc::new(job), shared, threads: Vec::new(), own: S::default() };
        for i in 0..threads {
            let (job, shared) = (queue.job.clone(), queue.shared.clone());
            let body = move || run_worker(&*job, &shared);
            queue.threads.push(std::thread::Builder::new().name(format!("striate-load-{i}")).spawn(body)?);
        }
        Ok(queue)
    }

    /// Throws away what was done ahead and goes on with these jobs.
    pub fn restart(&self, jobs: Range<u64>) {
        let mut state = self.shared.lock();
        state.generation += 1;
        state.results.clear();
        state.ahead = 0;
        state.pending.clear();
        state.pending.push_back(jobs);
        self.shared.work.notify_all();
    }

    /// Adds jobs after those that are known.
    pub fn extend(&self, jobs: Range<u64>) {
        let mut state = self.shared.lock();
        match state.pending.back_mut() {
            Some(last) if last.end == jobs.start => last.end = jobs.end,
            _ => state.pending.push_back(jobs),
        }
        self.shared.work.notify_all();
    }

    /// The result of a job. It must be the next of those given to `restart` and `extend`.
    pub fn take(&mut self, number: u64) -> std::thread::Result<T> {
        if self.threads.is_empty() {
            let (job, own) = (&self.job, &mut self.own);
            return catch_unwind(AssertUnwindSafe(|| job(number, own)));
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(result) = state.results.remove(&number) {
                state.ahead = state.ahead.saturating_sub(1);
                self.shared.work.notify_all();
                return result;
            }
            state = self.shared.done.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

impl<T, S> Drop for OrderedQueue<T, S> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches its jobs' panics; one that panicked all the same has nothing more to say here.
            let _ = thread.join();
        }
    }
}

fn run_worker<T, S: Default>(job: &Job<T, S>, shared: &Shared<T>) {
    let mut kept = S::default();
    let mut state = shared.lock();
    while !state.closed {
        while state.pending.front().is_some_and(Range::is_empty) {
            state.pending.pop_front();
        }
        let free = state.ahead < state.depth;
        let Some(number) = state.pending.front_mut().filter(|_| free).and_then(Iterator::next) else {
            state = shared.work.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        state.ahead += 1;
        let generation = state.generation;
        drop(state);
        let result = catch_unwind(AssertUnwindSafe(|| job(number, &mut kept)));
        state = shared.lock();
        if state.generation == generation {
            state.results.insert(number, result);
            shared.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn order_is_kept_and_the_bound_holds() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let mut queue = OrderedQueue::<u64, ()>::new(3, 4, |n, _| {
            MADE.fetch_add(1, Ordering::SeqCst);
            n * n
        })
        .unwrap();
        queue.restart(0..100);
        for n in 0..100 {
            assert_eq!(queue.take(n).unwrap(), n * n);
            assert!(MADE.load(Ordering::SeqCst) <= n as usize + 1 + 4);
        }
    }

    #[test]
    fn a_restart_discards_and_a_panic_arrives_in_its_place() {
        for threads in [0, 1, 3] {
            let mut queue = OrderedQueue::<u64, ()>::new(threads, 8, |n, _| {
                assert_ne!(n, 7, "job seven");
                n
            })
            .unwrap();
            queue.restart(0..5);
            assert_eq!(queue.take(0).unwrap(), 0);
            queue.restart(50..60);
            assert_eq!(queue.take(50).unwrap(), 50);
            queue.restart(6..8);
            queue.extend(8..9);
            assert_eq!(queue.take(6).unwrap(), 6);
            assert!(queue.take(7).is_err());
            assert_eq!(queue.take(8).unwrap(), 8);
        }
    }
}
