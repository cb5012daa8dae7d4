//! Ctrl-C and SIGTERM as a flag.

use crate::failure::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the first Ctrl-C sets; the second ends the process at once.
pub fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let installed = ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping: saving a checkpoint (again to leave at once)");
    });
    installed.map_err(|error| Failure::new(1, format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(flag)
}
