//! Events of a run: JSON lines, progress bars on a terminal, or short lines elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup::{BackupEvent, Catalog, EventSink};
use indicatif::{ProgressBar, ProgressStyle};

use super::text;
use crate::printer::{Printer, Style};

/// Where the expected size is known: bytes, rate and the time that is left at the rate so far.
const KNOWN: &str = "{prefix} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
/// Where it is not known there is nothing honest to say about the end.
const UNKNOWN: &str = "{prefix} {spinner} {bytes} {bytes_per_sec} {elapsed}";
const TICK: Duration = Duration::from_millis(250);

/// Renders events as they come.
pub(crate) struct Renderer {
    printer: Arc<Printer>,
    bars: Mutex<HashMap<(&'static str, String), ProgressBar>>,
    warnings: Mutex<Vec<String>>,
    /// Warnings that were shown before the run.
    told: HashSet<String>,
    /// Size of the archive of each database in the last backup of the target: what a dump moves
    /// is compressed, so its size on the server says little about the end.
    last_sizes: HashMap<String, u64>,
    dumps: Mutex<Dumps>,
}

/// How many databases there are, and how many were begun.
#[derive(Debug, Default)]
struct Dumps {
    all: usize,
    begun: usize,
}

impl Renderer {
    pub(crate) fn new(printer: &Arc<Printer>) -> Self {
        Self {
            printer: Arc::clone(printer),
            bars: Mutex::default(),
            warnings: Mutex::default(),
            told: HashSet::new(),
            last_sizes: HashMap::new(),
            dumps: Mutex::default(),
        }
    }

    /// Leaves out warnings that a person has just read.
    pub(crate) fn told(mut self, warnings: &[String]) -> Self {
        self.told.extend(warnings.iter().cloned());
        self
    }

    /// Takes what earlier backups of the target tell about the size of the next.
    pub(crate) fn with_history(mut self, catalog: &Catalog, target: &str) -> Self {
        let last = catalog
            .backups
            .iter()
            .find(|manifest| manifest.target.name == target);
        for database in last.into_iter().flat_map(|manifest| &manifest.databases) {
            self.last_sizes
                .insert(database.name.clone(), database.archive.bytes());
        }
        self
    }

    /// Warnings so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the bars away, also those of work that was cut short.
    pub(crate) fn clear(&self) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bar) in bars.drain() {
            bar.finish_and_clear();
        }
    }

    fn bar(&self, phase: &'static str, subject: &str, expected: Option<u64>) {
        let Some(place) = self.printer.bars() else {
            return;
        };
        let mut prefix = format!("{:8} {}", doing(phase), text::name(subject));
        let expected = if phase == "dump" {
            let mut dumps = self.dumps.lock().unwrap_or_else(PoisonError::into_inner);
            if subject != "globals" {
                dumps.begun += 1;
                prefix = format!("{prefix} ({} of {})", dumps.begun, dumps.all);
            }
            self.last_sizes.get(subject).copied()
        } else {
            expected
        };
        let bar = match expected {
            Some(bytes) if bytes > 0 => ProgressBar::new(bytes),
            _ => ProgressBar::no_length(),
        };
        let template = if bar.length().is_some() {
            KNOWN
        } else {
            UNKNOWN
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let bar = place.add(bar);
        bar.set_prefix(prefix);
        bar.enable_steady_tick(TICK);
        self.bars
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((phase, subject.to_owned()), bar);
    }

    fn with_bar(&self, phase: &'static str, subject: &str, work: impl FnOnce(&ProgressBar)) {
        let bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = bars.get(&(phase, subject.to_owned())) {
            work(bar);
        }
    }

    fn terminal(&self, event: BackupEvent) {
        let printer = &self.printer;
        match event {
            BackupEvent::RunStarted {
                id,
                target,
                databases,
                size_bytes,
            } => {
                self.dumps
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .all = databases.len();
                printer.message(format!(
                    "backup {id} of {}: {} ({} on the server)",
                    text::name(&target),
                    list(&databases),
                    text::bytes(size_bytes)
                ));
            }
            BackupEvent::Warning { message } if self.told.contains(&message) => {}
            BackupEvent::Warning { message } => printer.warning(message),
            BackupEvent::Chosen { message } | BackupEvent::CleanedUp { message } => {
                printer.message(message);
            }
            BackupEvent::PhaseStarted {
                phase,
                subject,
                expected_bytes,
            } => self.bar(phase, &subject, expected_bytes),
            BackupEvent::Progress {
                phase,
                subject,
                bytes,
            } => self.with_bar(phase, &subject, |bar| {
                // More than was expected: the expectation was wrong, and so is any time left.
                if bar.length().is_some_and(|length| bytes > length) {
                    bar.unset_length();
                    if let Ok(style) = ProgressStyle::with_template(UNKNOWN) {
                        bar.set_style(style);
                    }
                }
                bar.set_position(bytes);
            }),
            BackupEvent::PhaseFinished {
                phase,
                subject,
                bytes,
                seconds,
            } => {
                let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(bar) = bars.remove(&(phase, subject.clone())) {
                    bar.finish_and_clear();
                }
                drop(bars);
                let moved = match bytes {
                    0 => String::new(),
                    bytes => format!("{} in ", text::bytes(bytes)),
                };
                printer.message(format!(
                    "{} {:8} {}: {moved}{}",
                    printer.styled("ok", Style::Good),
                    done(phase),
                    text::name(&subject),
                    text::seconds(seconds)
                ));
            }
            // The result says it.
            BackupEvent::Published { .. } => {}
            _ => {}
        }
    }
}

impl EventSink for Renderer {
    fn emit(&self, event: BackupEvent) {
        if let BackupEvent::Warning { message } = &event {
            self.warnings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(message.clone());
        }
        if self.printer.json {
            self.printer.json_line(&event);
        }
        if !self.printer.json || matches!(event, BackupEvent::Warning { .. }) {
            self.terminal(event);
        }
    }
}

fn list(databases: &[String]) -> String {
    const SHOWN: usize = 5;
    let names: Vec<_> = databases
        .iter()
        .take(SHOWN)
        .map(|n| text::name(n))
        .collect();
    let more = match databases.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.join(", "))
}

fn doing(phase: &'static str) -> &'static str {
    match phase {
        "dump" => "dumping",
        "verify" => "reading",
        "restore" => "restoring",
        "analyze" => "analyzing",
        "compare" => "comparing",
        other => other,
    }
}

fn done(phase: &'static str) -> &'static str {
    match phase {
        "dump" => "dumped",
        "verify" => "verified",
        "restore" => "restored",
        "analyze" => "analyzed",
        "compare" => "compared",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [KNOWN, UNKNOWN] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn long_lists_are_shortened() {
        let names: Vec<String> = (0..7).map(|n| format!("db{n}")).collect();
        assert_eq!(list(&names), "db0, db1, db2, db3, db4 and 2 more");
    }
}
