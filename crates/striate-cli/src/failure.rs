//! How a verb fails: a message for stderr and an exit code.

use std::process::ExitCode;
use striate::train::TrainError;
use striate::vision::bench::BenchError;

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

    /// Wrong data.
    pub fn data(message: impl Into<String>) -> Failure {
        Failure::new(3, message)
    }

    /// The system refused.
    pub fn io(path: &std::path::Path, action: &str, error: &std::io::Error) -> Failure {
        Failure::new(5, format!("{}: cannot {action}: {error}", path.display()))
    }

    /// A file of arrays: what is wrong inside it is data, what the system says is input/output.
    pub fn array_file(error: &striate::io::Error) -> Failure {
        Failure::new(if error.is_io() { 5 } else { 3 }, error.to_string())
    }

    /// The same with something before its message.
    pub fn before(self, what: &str) -> Failure {
        Failure { message: format!("{what}{}", self.message), ..self }
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is about one file that was read, so that others may go on.
    pub fn is_of_input(&self) -> bool {
        matches!(self.code, 3 | 5)
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

/// Errors that training can meet too get the code that training gives them.
macro_rules! as_in_training {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                TrainError::from(error).into()
            }
        }
    )*};
}
as_in_training!(
    striate::vision::models::ModelError,
    striate::vision::data::DataError,
    striate::nn::Error,
    striate::graph::Error
);

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Failure {
        match error {
            BenchError::Model(error) => error.into(),
            BenchError::Graph(error) => error.into(),
            other => Failure::usage(other.to_string()),
        }
    }
}
