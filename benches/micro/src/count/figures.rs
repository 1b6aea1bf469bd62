//! The file of committed figures, and what a difference means.

use std::{collections::BTreeMap, fmt, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Instructions a row, by form.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    /// Architecture and system: other ones count otherwise.
    pub machine: String,
    /// The compiler that built what was counted.
    rustc: String,
    instructions_per_row: BTreeMap<String, f64>,
}

impl Figures {
    pub fn new() -> Self {
        Self {
            machine: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            rustc: rustc(),
            instructions_per_row: BTreeMap::new(),
        }
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("can't read {}: make it with --accept", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not as expected", path.display()))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = format!(
            "# Instructions a row of the hot path (pgbraid-hotpath count), written by --accept.\n{self}"
        );
        fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }

    pub fn set(&mut self, form: &str, instructions: f64) {
        // Tenths are more than is known.
        let rounded = (instructions * 10.0).round() / 10.0;
        self.instructions_per_row.insert(form.to_owned(), rounded);
    }

    pub fn get(&self, form: &str) -> Result<f64> {
        self.instructions_per_row
            .get(form)
            .copied()
            .with_context(|| format!("no figure for {form}: make it with --accept"))
    }

    pub fn comparable(&self, other: &Self) -> bool {
        self.machine == other.machine
    }

    /// Says so if another compiler built this.
    pub fn compilers(&self, other: &Self) -> Option<String> {
        (self.rustc != other.rustc).then(|| {
            format!(
                "The committed figures are of {}, these of {}: part of the difference may be the compiler's.",
                self.rustc, other.rustc
            )
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine = {:?}", self.machine)?;
        writeln!(f, "rustc = {:?}", self.rustc)?;
        writeln!(f, "\n[instructions_per_row]")?;
        for (form, instructions) in &self.instructions_per_row {
            writeln!(f, "{form} = {instructions:.1}")?;
        }
        Ok(())
    }
}

fn rustc() -> String {
    Command::new("rustc")
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(
            || "an unknown compiler".to_owned(),
            |text| text.trim().to_owned(),
        )
}

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Worse,
    Same,
    Better,
}

impl Verdict {
    /// Of a relative change.
    pub fn of(change: f64, tolerance: f64) -> Self {
        if change > tolerance {
            Self::Worse
        } else if change < -tolerance {
            Self::Better
        } else {
            Self::Same
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::new();
        figures.set("columnar", 432.16);
        figures.set("single", 3000.0);
        figures
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instructions.toml");
        figures().write(&path).unwrap();
        let read = Figures::read(&path).unwrap();
        assert_eq!(read, figures());
        assert_eq!(read.get("columnar").unwrap(), 432.2);
        let missing = read.get("rows").unwrap_err().to_string();
        assert!(missing.contains("rows") && missing.contains("--accept"));
        let absent = Figures::read(&folder.path().join("other")).unwrap_err();
        assert!(absent.to_string().contains("--accept"));
    }

    #[test]
    fn other_machines_and_compilers_are_told_apart() {
        let other = Figures {
            machine: "pdp11-unix".into(),
            rustc: "rustc 1.0.0".into(),
            ..figures()
        };
        assert!(!figures().comparable(&other));
        assert!(figures().comparable(&figures()));
        assert_eq!(figures().compilers(&figures()), None);
        assert!(figures().compilers(&other).unwrap().contains("rustc 1.0.0"));
    }

    #[test]
    fn a_tenth_is_the_limit() {
        assert_eq!(Verdict::of(0.11, 0.1), Verdict::Worse);
        assert_eq!(Verdict::of(0.09, 0.1), Verdict::Same);
        assert_eq!(Verdict::of(-0.09, 0.1), Verdict::Same);
        assert_eq!(Verdict::of(-0.11, 0.1), Verdict::Better);
    }
}
