//! A team of threads that a program run keeps awake: an epoch barrier, a bounded spin, then sleep.
//!
//! The caller is worker 0. Work is cut statically, by index, so which thread does what is a function of the numbers alone;
//! kernels are written so that results do not depend even on that.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Spin this long for the next job, or for the others to finish, before sleeping.
const SPIN: Duration = Duration::from_micros(50);
/// The same while some thread is inside [`Team::enter`]: a program run has serial stretches between its parallel ones.
const SPIN_ENTERED: Duration = Duration::from_millis(2);
/// Pauses between two looks at the clock.
const PAUSES: u32 = 64;

/// On its own cache line, or pair of lines that the hardware fetches together.
#[repr(align(128))]
struct Padded<T>(T);

/// A job as the workers see it. The reference outlives the job because `run` waits for all of them.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize, usize) + Sync),
    float_control: u64,
}

struct Shared {
    count: usize,
    /// Spinning hurts where there are more threads than cores.
    crowded: bool,
    epoch: Padded<AtomicU64>,
    remaining: Padded<AtomicUsize>,
    entered: AtomicUsize,
    stop: AtomicBool,
    job: UnsafeCell<Job>,
    /// For each worker but the caller: it sleeps, or is about to.
    asleep: Vec<Padded<AtomicBool>>,
    caller_waits: AtomicBool,
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the holder of `Team::turn` while no worker runs, and read by workers after they have
// seen the new epoch (release/acquire); `Job`'s closure is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A fixed number of threads that run jobs together.
///
/// One team may be shared by several user threads; their jobs take turns. A job that starts another on any team runs that
/// one alone on its own thread, so nothing deadlocks.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use striate_kernels::threads::Team;
/// let team = Team::new(3);
/// let sum = AtomicUsize::new(0);
/// team.for_each(100, |i| { sum.fetch_add(i, Ordering::Relaxed); });
/// assert_eq!(sum.into_inner(), 4950);
/// ```
pub struct Team {
    shared: Arc<Shared>,
    turn: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

impl Team {
    /// A team of `threads` (at least 1), the caller included: `threads - 1` are started. More than the machine has cores is
    /// allowed; where the system refuses a thread, the team is smaller.
    pub fn new(threads: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut count = threads.max(1);
        loop {
            match Self::start(count, count > cores) {
                Ok(team) => return team,
                Err(started) => count = started,
            }
        }
    }

    /// Starts the workers, or says how many threads there could be.
    fn start(count: usize, crowded: bool) -> Result<Self, usize> {
        fn nothing(_: usize, _: usize) {}
        let shared = Arc::new(Shared {
            count,
            crowded,
            epoch: Padded(AtomicU64::new(0)),
            remaining: Padded(AtomicUsize::new(0)),
            entered: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            job: UnsafeCell::new(Job { work: &nothing, float_control: float_control() }),
            asleep: (1..count).map(|_| Padded(AtomicBool::new(false))).collect(),
            caller_waits: AtomicBool::new(false),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
        });
        let mut team = Team { shared, turn: Mutex::new(()), workers: Vec::new() };
        for index in 1..count {
            let shared = team.shared.clone();
            let name = format!("striate-{index}");
            match std::thread::Builder::new().name(name).spawn(move || worker(&shared, index)) {
                Ok(handle) => team.workers.push(handle),
                Err(_) => return Err(index),
            }
        }
        Ok(team)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.count
    }

    /// Calls `work(index, count)` once for each index below `count`, at the same time on different threads, and waits for
    /// all. `count` is [`Team::threads`], or 1 inside another job. A panic in any of them goes on in the caller.
    pub fn run<F: Fn(usize, usize) + Sync>(&self, work: F) {
        if self.shared.count == 1 || INSIDE.get() {
            return work(0, 1);
        }
        let _turn = lock(&self.turn);
        let outcome = self.run_all(&work);
        let theirs = lock(&self.shared.panic).take();
        if let Err(payload) = outcome {
            resume_unwind(payload);
        }
        if let Some(payload) = theirs {
            resume_unwind(payload);
        }
    }

    fn run_all<'a>(&self, work: &'a (dyn Fn(usize, usize) + Sync + 'a)) -> std::thread::Result<()> {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; no worker uses it after `remaining` is 0, for which this function waits.
        let work_static = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize, usize) + Sync + 'a),
                *const (dyn Fn(usize, usize) + Sync + 'static),
            >(work)
        };
        // SAFETY: we hold the turn and the last job is over.
        unsafe { *shared.job.get() = Job { work: work_static, float_control: float_control() } };
        shared.remaining.0.store(shared.count - 1, Relaxed);
        // Sequentially consistent against the worker's "asleep, then look at the epoch again".
        shared.epoch.0.fetch_add(1, SeqCst);
        for (asleep, handle) in shared.asleep.iter().zip(&self.workers) {
            if asleep.0.load(SeqCst) {
                handle.thread().unpark();
            }
        }
        INSIDE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(0, shared.count)));
        INSIDE.set(false);
        self.wait_for_workers();
        outcome
    }

    fn wait_for_workers(&self) {
        let shared = &*self.shared;
        let done = || shared.remaining.0.load(Acquire) == 0;
        if spin_until(if shared.crowded { Duration::ZERO } else { SPIN }, done) {
            return;
        }
        *lock(&shared.caller) = Some(std::thread::current());
        shared.caller_waits.store(true, SeqCst);
        while shared.remaining.0.load(SeqCst) != 0 {
            std::thread::park();
        }
        shared.caller_waits.store(false, SeqCst);
        lock(&shared.caller).take();
    }

    /// Calls `work(task)` for each task below `tasks`. The thread with index `i` of `n` does the tasks from `tasks*i/n` up
    /// to `tasks*(i+1)/n`, in order.
    pub fn for_each<F: Fn(usize) + Sync>(&self, tasks: usize, work: F) {
        if tasks <= 1 || self.shared.count == 1 {
            return (0..tasks).for_each(work);
        }
        self.run(|index, count| part(tasks, index, count).for_each(&work));
    }

    /// Keeps the workers awake between jobs, and flushes denormal floats to zero on this thread and in all jobs that it
    /// starts, until the guard is dropped. Use it around a program run. Guards nest.
    pub fn enter(&self) -> Entered<'_> {
        self.shared.entered.fetch_add(1, Relaxed);
        let before = float_control();
        set_float_control(flushing(before));
        Entered { shared: &self.shared, before, not_send: PhantomData }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.epoch.0.fetch_add(1, SeqCst);
        for handle in self.workers.drain(..) {
            handle.thread().unpark();
            // A worker catches its jobs' panics, so it ends in order.
            let _ = handle.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} threads)", self.threads())
    }
}

/// See [`Team::enter`].
pub struct Entered<'a> {
    shared: &'a Shared,
    before: u64,
    /// The floating-point control belongs to the thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        set_float_control(self.before);
        self.shared.entered.fetch_sub(1, Relaxed);
    }
}

/// The part of `tasks` that index `index` of `count` does: contiguous, sizes differ by at most one.
pub fn part(tasks: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    tasks * index / count..tasks * (index + 1) / count
}

/// How many threads to use unless told: `STRIATE_THREADS` where it is a number above 0, else what CPU affinity and the
/// cgroup's quota allow.
pub fn default_threads() -> usize {
    let asked = std::env::var("STRIATE_THREADS").ok().and_then(|v| v.trim().parse().ok()).filter(|&n: &usize| n > 0);
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes guard stays valid when a holder panics.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Spins until `done` or until the time is over; says which.
fn spin_until(limit: Duration, done: impl Fn() -> bool) -> bool {
    if done() {
        return true;
    }
    let start = Instant::now();
    loop {
        for _ in 0..PAUSES {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return done();
        }
    }
}

fn worker(shared: &Shared, index: usize) {
    INSIDE.set(true);
    let mut seen = 0;
    loop {
        wait_for_epoch(shared, index, seen);
        seen += 1;
        if shared.stop.load(Acquire) {
            return;
        }
        // SAFETY: the epoch was published after the job, and the job stays until `remaining` is 0.
        let job = unsafe { *shared.job.get() };
        set_float_control(job.float_control);
        // SAFETY: the closure lives until `remaining` is 0.
        let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.work)(index, shared.count) }));
        if let Err(payload) = outcome {
            *lock(&shared.panic) = Some(payload);
        }
        // The caller's handle stays in its place: a worker that is late here may meet the next job's waiting caller, whose
        // wake-up it must not take away. One wake-up too many is harmless.
        if shared.remaining.0.fetch_sub(1, SeqCst) == 1
            && shared.caller_waits.load(SeqCst)
            && let Some(caller) = lock(&shared.caller).as_ref()
        {
            caller.unpark();
        }
    }
}

fn wait_for_epoch(shared: &Shared, index: usize, seen: u64) {
    let changed = || shared.epoch.0.load(Acquire) != seen;
    let limit = match (shared.crowded, shared.entered.load(Relaxed) > 0) {
        (true, _) => Duration::ZERO,
        (false, true) => SPIN_ENTERED,
        (false, false) => SPIN,
    };
    if spin_until(limit, changed) {
        return;
    }
    let asleep = &shared.asleep[index - 1].0;
    asleep.store(true, SeqCst);
    while shared.epoch.0.load(SeqCst) == seen {
        std::thread::park();
    }
    asleep.store(false, SeqCst);
}

/// Flushes denormal floats to zero on this thread until it is dropped. For work outside of a team's jobs, such as loading.
#[derive(Debug)]
pub struct FlushDenormals {
    before: u64,
    not_send: PhantomData<*const ()>,
}

impl FlushDenormals {
    /// From now on. Guards nest.
    pub fn on() -> Self {
        let before = float_control();
        set_float_control(flushing(before));
        Self { before, not_send: PhantomData }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        set_float_control(self.before);
    }
}

/// This thread's floating-point control register.
#[cfg(target_arch = "x86_64")]
fn float_control() -> u64 {
    let mut value = 0u32;
    // SAFETY: stores MXCSR to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
    value as u64
}

#[cfg(target_arch = "x86_64")]
fn set_float_control(value: u64) {
    let value = value as u32;
    // SAFETY: a value read from MXCSR, with at most the flush bits changed; no exception is unmasked.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
}

/// FTZ (bit 15) and DAZ (bit 6) set.
#[cfg(target_arch = "x86_64")]
fn flushing(value: u64) -> u64 {
    value | 1 << 15 | 1 << 6
}

/// This thread's floating-point control register.
#[cfg(target_arch = "aarch64")]
fn float_control() -> u64 {
    let value: u64;
    // SAFETY: reads FPCR.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

#[cfg(target_arch = "aarch64")]
fn set_float_control(value: u64) {
    // SAFETY: a value read from FPCR, with at most FZ changed.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// FZ (bit 24) set.
#[cfg(target_arch = "aarch64")]
fn flushing(value: u64) -> u64 {
    value | 1 << 24
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn float_control() -> u64 {
    0
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set_float_control(_: u64) {}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn flushing(value: u64) -> u64 {
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_index_runs_once_and_waits() {
        for threads in [1, 2, 3, 7] {
            let team = Team::new(threads);
            assert_eq!(team.threads(), threads);
            let hits: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
            for round in 0..300 {
                if round % 100 == 50 {
                    std::thread::sleep(Duration::from_millis(5)); // all asleep
                }
                team.run(|index, count| {
                    assert_eq!(count, threads);
                    hits[index].fetch_add(1, Relaxed);
                });
            }
            assert!(hits.iter().all(|h| h.load(Relaxed) == 300));
        }
    }

    #[test]
    fn parts_cover_all_tasks() {
        for (tasks, count) in [(0, 3), (1, 3), (10, 3), (9, 3)] {
            let all: Vec<usize> = (0..count).flat_map(|i| part(tasks, i, count)).collect();
            assert_eq!(all, (0..tasks).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(3);
        for bad in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| team.run(|index, _| assert!(index != bad, "worker {bad}"))));
            assert!(result.is_err(), "{bad}");
            let sum = AtomicUsize::new(0);
            team.for_each(10, |i| {
                sum.fetch_add(i, Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn nested_and_concurrent_jobs_finish() {
        let team = Team::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.for_each(4, |_| team.for_each(5, |_| _ = sum.fetch_add(1, Relaxed)));
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 50 * 20);
    }

    fn tiny_product() -> f32 {
        std::hint::black_box(1e-30f32) * std::hint::black_box(1e-10f32)
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn denormals_are_flushed_inside_enter_only() {
        let team = Team::new(3);
        let flushed = || {
            let count = AtomicUsize::new(0);
            team.run(|_, _| {
                if tiny_product() == 0.0 {
                    count.fetch_add(1, Relaxed);
                }
            });
            count.into_inner()
        };
        assert_eq!(flushed(), 0);
        {
            let _guard = team.enter();
            assert_eq!(flushed(), 3);
        }
        assert_eq!(flushed(), 0);
        assert!(tiny_product() > 0.0);
    }

    #[test]
    fn default_is_at_least_one() {
        assert!(default_threads() >= 1);
    }
}
