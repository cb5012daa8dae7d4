//! How a verb fails: a message for stderr and an exit code.

use std::process::ExitCode;
use striate::train::TrainError;

/// 0 ok, 1 internal, 2 wrong usage or wrong model, 3 data, 5 input/output, 6 loss not finite, 130 interrupted.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// With this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(2, message)
    }

    /// Prints the message and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let kind = if self.code == 130 { "" } else { "error: " };
        eprintln!("{kind}{}", self.message);
        ExitCode::from(self.code)
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Failure {
        Failure::new(error.exit_code(), error.to_string())
    }
}
