//! Arguments of the bench.

use testkit::sets::{Set, Sizes};

const USAGE: &str = "cargo xtask bench [--quick] [--no-build] [--majors 15,17] \
[--sets pgbench,big,many,toast,blobs,random,empty] [--rounds N] [--size-mb N] [--tables N] \
[--objects N] [--empty-tables N] [--only dump|restore|extras] [--contenders WORDS,…]";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Dumps.
    Dump,
    /// Restores.
    Restore,
    /// Reading of stored archives, and what passes before the first byte.
    Extras,
}

#[derive(Debug)]
pub(crate) struct Options {
    /// Whether the program is built first; else the one in `target/release` is measured.
    pub(crate) build: bool,
    pub(crate) rounds: usize,
    pub(crate) majors: Vec<u32>,
    pub(crate) sets: Vec<Set>,
    pub(crate) sizes: Sizes,
    pub(crate) parts: Vec<Part>,
    /// Only contenders whose name holds one of these words; all when empty.
    pub(crate) contenders: Vec<String>,
}

impl Options {
    /// # Errors
    /// Words that are not known, and the usage.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            build: true,
            rounds: 7,
            majors: vec![15, 17],
            // Tables without rows by the tens of thousands take their time; they are asked for.
            sets: Set::ALL
                .iter()
                .copied()
                .filter(|set| *set != Set::Empty)
                .collect(),
            sizes: Sizes {
                megabytes: 500,
                tables: 10_000,
                objects: 100_000,
                empty_tables: 100_000,
            },
            parts: vec![Part::Dump, Part::Restore],
            contenders: Vec::new(),
        };
        // First, so that other options win over it wherever it stands.
        if args.iter().any(|arg| arg == "--quick") {
            options.rounds = 1;
            options.sizes = Sizes {
                megabytes: 64,
                tables: 500,
                objects: 2_000,
                empty_tables: 2_000,
            };
        }
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value; {USAGE}"));
            match arg.as_str() {
                "--quick" => {}
                "--no-build" => options.build = false,
                "--rounds" => options.rounds = number::<usize>(value()?)?.max(1),
                "--size-mb" => options.sizes.megabytes = number::<u64>(value()?)?.max(16),
                "--tables" => options.sizes.tables = number(value()?)?,
                "--objects" => options.sizes.objects = number(value()?)?,
                "--empty-tables" => options.sizes.empty_tables = number(value()?)?,
                "--majors" => options.majors = list(value()?, number)?,
                "--sets" => options.sets = list(value()?, Set::parse)?,
                "--only" => options.parts = list(value()?, part)?,
                "--contenders" => {
                    options.contenders = list(value()?, |word| Ok(word.to_owned()))?;
                }
                _ => return Err(format!("{arg:?} is not known; {USAGE}")),
            }
        }
        Ok(options)
    }

    /// Rounds of a set: one where only seconds and memory of a giant are asked.
    pub(crate) fn rounds_of(&self, set: Set) -> usize {
        if set == Set::Empty { 1 } else { self.rounds }
    }

    /// Whether a contender takes part.
    pub(crate) fn takes(&self, tool: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|word| tool.contains(word))
    }
}

fn list<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|word| read(word.trim())).collect()
}

fn part(word: &str) -> Result<Part, String> {
    match word {
        "dump" => Ok(Part::Dump),
        "restore" => Ok(Part::Restore),
        "extras" => Ok(Part::Extras),
        _ => Err(format!("{word:?} is not known; {USAGE}")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number; {USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args)
    }

    #[test]
    fn options() {
        let options = parse("--rounds 3 --majors 13,18 --sets big,empty --quick").unwrap();
        assert_eq!(
            (options.rounds, options.majors.as_slice()),
            (3, &[13, 18][..])
        );
        assert_eq!(options.sets, [Set::Big, Set::Empty]);
        assert_eq!(options.sizes.tables, 500);
        assert_eq!(options.rounds_of(Set::Empty), 1);
        assert!(options.takes("pgstow backup"));
        let some = parse("--contenders pgstow,floor").unwrap();
        assert!(some.takes("pgstow backup") && !some.takes("docker exec pg_dump"));
    }

    #[test]
    fn unknown_words_are_refused() {
        for wrong in [
            "--rounds",
            "--what",
            "--sets some",
            "--only half",
            "--majors x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
