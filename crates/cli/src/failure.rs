//! How a command fails: what, why, and what to do.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// To be told.
    Told(Box<Told>),
    /// The result itself says it, and was printed: exit with 1.
    Printed,
    /// The result was printed, and asks for this exit code.
    Code(u8),
    /// Nobody reads our output any more, as with `| head`: end quietly.
    PipeClosed,
}

/// What is told of a failure.
#[derive(Debug)]
pub struct Told {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(what: impl Into<String>) -> Self {
        Self::Told(Box::new(Told {
            what: what.into(),
            causes: Vec::new(),
            hint: None,
        }))
    }

    /// What the user should do now.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Told(told) = &mut self {
            told.hint = Some(hint.into());
        }
        self
    }

    /// What was being done.
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        if let Self::Told(told) = &mut self {
            let cause = std::mem::replace(&mut told.what, doing.into());
            told.causes.insert(0, cause);
        }
        self
    }

    /// Says it on stderr.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Told(told) => {
                // There is nowhere to say that stderr is gone.
                let _ = io::stderr().write_all(told.text().as_bytes());
                ExitCode::FAILURE
            }
            Self::Printed => ExitCode::FAILURE,
            Self::Code(code) => ExitCode::from(*code),
            Self::PipeClosed => ExitCode::SUCCESS,
        }
    }
}

impl Told {
    fn text(&self) -> String {
        // Writing to a String cannot fail.
        let mut text = String::new();
        let _ = writeln!(text, "error: {}", self.what.trim_end());
        for cause in &self.causes {
            let _ = writeln!(text, "  {}", cause.trim_end().replace('\n', "\n  "));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
        text
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut told = Told {
            what: error.to_string(),
            causes: Vec::new(),
            hint: None,
        };
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors name their cause already.
            if !told.what.contains(&text) && !told.causes.iter().any(|c| c.contains(&text)) {
                told.causes.push(text);
            }
            next = cause.source();
        }
        Self::Told(Box::new(told))
    }
}

/// `result.or("cannot read x")`.
pub trait OrFail<T> {
    fn or_fail(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Failure>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().context(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_why_and_what_to_do() {
        let cause = io::Error::other("disk on fire\nand more");
        let failure = Failure::from(cause)
            .context("cannot write x")
            .hint("buy a new one");
        let Failure::Told(told) = failure else {
            panic!("not told")
        };
        let lines = [
            "error: cannot write x",
            "  disk on fire",
            "  and more",
            "  hint: buy a new one",
        ];
        assert_eq!(told.text(), lines.join("\n") + "\n");
    }
}
