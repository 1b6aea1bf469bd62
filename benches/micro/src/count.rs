//! Instructions a row.
//!
//! Times vary from run to run and from machine to machine; the number of instructions on a fixed
//! input hardly does. Each form is run with some requests and with twice as many, and the
//! difference counts: what begins and ends cost is in both.

mod figures;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use figures::{Figures, Verdict};

/// More than this over the committed figure fails.
const TOLERANCE: f64 = 0.10;

/// The forms, with the requests of the shorter run, and rows a request. More requests than this
/// change the figures by less than a hundredth.
const FORMS: [(&str, u64, u64); 3] = [
    ("columnar", 384, 1000),
    ("rows", 192, 1000),
    ("single", 384 * 256, 1),
];

/// Instructions of this function are counted, and of what it calls.
const COUNTED: &str = "pgbraid_hotpath::plain::counted*";

const ACCEPT: &str =
    "cargo run --profile count -p pgbraid-micro --bin pgbraid-hotpath -- count --accept";

#[derive(Args)]
pub(crate) struct Options {
    /// Writes what is counted to the file instead of comparing
    #[arg(long)]
    accept: bool,
    /// The committed figures
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml"))]
    figures: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !have_valgrind() {
        bail!("valgrind is missing: install it (apt-get install valgrind) to count instructions");
    }
    let mut counted = Figures::new();
    for (form, requests, rows) in FORMS {
        let once = instructions(form, requests)?;
        let twice = instructions(form, 2 * requests)?;
        ensure!(
            twice > once,
            "{form}: twice the requests took fewer instructions"
        );
        let a_row = (twice - once) as f64 / (requests * rows) as f64;
        counted.set(form, a_row);
    }
    if options.accept {
        counted.write(&options.figures)?;
        println!("{counted}written to {}", options.figures.display());
        return Ok(());
    }
    let committed = Figures::read(&options.figures)?;
    if !committed.comparable(&counted) {
        println!(
            "{counted}NOT COMPARED: the committed figures are of {}, this is {}",
            committed.machine, counted.machine
        );
        return Ok(());
    }
    let mut worst = Verdict::Same;
    for (form, ..) in FORMS {
        let (before, now) = (committed.get(form)?, counted.get(form)?);
        let change = now / before - 1.0;
        println!(
            "{form:<9} {now:>7.1} instructions a row, committed {before:>7.1}: {:+.1} %",
            change * 100.0
        );
        let verdict = Verdict::of(change, TOLERANCE);
        if verdict != Verdict::Same && worst != Verdict::Worse {
            worst = verdict;
        }
    }
    if worst != Verdict::Same
        && let Some(note) = committed.compilers(&counted)
    {
        println!("{note}");
    }
    let percent = TOLERANCE * 100.0;
    match worst {
        Verdict::Same => {}
        Verdict::Better => println!(
            "The hot path got over {percent:.0} % better: so that it stays so, accept the new \
             figures and commit the file:\n  {ACCEPT}"
        ),
        Verdict::Worse => bail!(
            "the hot path takes over {percent:.0} % more instructions than committed.\n\
             See where: valgrind --tool=callgrind PATH/pgbraid-hotpath FORM, then \
             callgrind_annotate.\n\
             If it is worth it, accept the new figures and commit the file, saying why:\n  {ACCEPT}"
        ),
    }
    Ok(())
}

fn have_valgrind() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Instructions of so many requests.
fn instructions(form: &str, requests: u64) -> Result<u64> {
    let folder = tempfile::Builder::new()
        .prefix("pgbraid-count-")
        .tempdir()
        .context("can't make a folder for callgrind's output")?;
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        // Off but in there.
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args([form, "--requests", &requests.to_string()])
        .output()
        .context("can't start valgrind")?;
    ensure!(
        output.status.success(),
        "{form} under valgrind: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let counted = total(&out)?;
    ensure!(
        counted > 0,
        "{form}: callgrind counted nothing: is there still a function {COUNTED}?"
    );
    Ok(counted)
}

/// The total of a file that callgrind wrote.
fn total(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("callgrind left no {}", file.display()))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("totals: ")
                .or_else(|| line.strip_prefix("summary: "))
        })
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("no total in {}", file.display()))
}
