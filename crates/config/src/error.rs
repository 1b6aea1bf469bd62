//! What can be wrong with a file of settings, told so that it can be put right.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why settings could not be loaded. Its text is complete: where, what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {} ({purpose}): {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file is for.
        purpose: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// The text of a file is not TOML, or says something that cannot be.
    #[error(transparent)]
    Invalid(Box<Invalid>),
    /// A file or variable that the settings name holds something unusable.
    #[error("{origin}: {message}")]
    Unusable {
        /// The file or variable.
        origin: String,
        /// What is wrong and what to do; never the secret itself.
        message: String,
    },
}

impl ConfigError {
    /// The line and column where it is wrong, both from 1, the column in characters.
    pub fn position(&self) -> Option<(usize, usize)> {
        match self {
            Self::Invalid(invalid) => invalid
                .place
                .as_ref()
                .map(|place| (place.line, place.column)),
            Self::Read { .. } | Self::Unusable { .. } => None,
        }
    }

    /// What is wrong in one line, without place, snippet and help.
    pub fn message(&self) -> String {
        match self {
            Self::Invalid(invalid) => invalid.message.clone(),
            Self::Unusable { message, .. } => message.clone(),
            Self::Read { .. } => self.to_string(),
        }
    }

    pub(crate) fn read(path: &Path, purpose: &'static str, cause: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            purpose,
            cause,
        }
    }
}

/// One mistake in a file. Displayed with the line it is in, if it is in one.
#[derive(Debug)]
pub struct Invalid {
    pub(crate) origin: String,
    pub(crate) place: Option<Place>,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// A place in a file.
#[derive(Debug)]
pub(crate) struct Place {
    pub line: usize,
    pub column: usize,
    /// The line, or the part of it around the mistake, fit to be shown.
    pub snippet: String,
    /// Where in the snippet it is, in characters.
    pub caret: usize,
    pub carets: usize,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            let indent = " ".repeat(place.caret);
            let carets = "^".repeat(place.carets);
            write!(
                f,
                "\n{margin} |\n{number} | {}\n{margin} | {indent}{carets}",
                place.snippet
            )?;
        }
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        Ok(())
    }
}
