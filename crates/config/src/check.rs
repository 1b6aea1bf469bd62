//! Checks that many settings share. Each error points at the value.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::at::At;
use crate::error::ConfigError;
use crate::source::Source;

/// PostgreSQL's `NAMEDATALEN - 1`: the longest identifier, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 63;

/// Checks values of one file.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    pub source: &'a Source,
    /// The folder that paths are relative to.
    pub folder: &'a Path,
}

impl Check<'_> {
    /// A mistake in one value.
    pub fn refuse<T>(
        &self,
        at: &At<T>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> ConfigError {
        self.source.error(at.span(), message, help)
    }

    /// A quantity in its range.
    pub fn within<T: PartialOrd + Display + Copy>(
        &self,
        key: &str,
        at: &At<T>,
        range: RangeInclusive<T>,
    ) -> Result<T, ConfigError> {
        if range.contains(at) {
            return Ok(**at);
        }
        let (least, most) = (range.start(), range.end());
        let message = format!("{key} is {}, allowed are {least} to {most}", **at);
        Err(self.refuse(at, message, ""))
    }

    /// A count in its range, as the type that the range fits in.
    pub fn count<T: TryFrom<i64>>(
        &self,
        key: &str,
        at: &At<i64>,
        range: RangeInclusive<i64>,
    ) -> Result<T, ConfigError> {
        let count = self.within(key, at, range)?;
        let too_wide = |_| self.refuse(at, format!("{key} is too large"), "");
        T::try_from(count).map_err(too_wide)
    }

    /// `lesser` must not exceed `greater`; points at whichever was written, the lesser first.
    pub fn at_most<T: PartialOrd + Display>(
        &self,
        (lesser_key, lesser): (&str, &At<T>),
        (greater_key, greater): (&str, &At<T>),
    ) -> Result<(), ConfigError> {
        if **lesser <= **greater {
            return Ok(());
        }
        let or_default = |at: &At<T>| {
            if at.span().is_none() {
                ", its default"
            } else {
                ""
            }
        };
        let message = format!(
            "{lesser_key} ({}{}) must be at most {greater_key} ({}{})",
            **lesser,
            or_default(lesser),
            **greater,
            or_default(greater),
        );
        let span = lesser.span().or_else(|| greater.span());
        let help = format!("lower {lesser_key} or raise {greater_key}");
        Err(self.source.error(span, message, help))
    }

    /// A path, relative to the file's folder.
    pub fn path(&self, key: &str, at: &At<String>) -> Result<PathBuf, ConfigError> {
        if at.is_empty() || at.contains('\0') {
            let message = format!("{key} is not a path");
            let help = "name a file, relative to the folder of this one, or remove the key";
            return Err(self.refuse(at, message, help));
        }
        Ok(self.folder.join(at.as_str()))
    }

    /// An optional path.
    pub fn optional_path(
        &self,
        key: &str,
        at: Option<&At<String>>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        at.map(|at| self.path(key, at)).transpose()
    }

    /// A name of PostgreSQL, exactly as it is stored there.
    pub fn name(&self, key: &str, at: &At<String>) -> Result<String, ConfigError> {
        if at.is_empty() || at.len() > MAX_NAME_BYTES || at.contains('\0') {
            let message = format!(
                "{key}: a name of {} bytes, allowed are 1 to {MAX_NAME_BYTES} bytes without NUL",
                at.len()
            );
            return Err(self.refuse(at, message, ""));
        }
        Ok(at.to_string())
    }
}
