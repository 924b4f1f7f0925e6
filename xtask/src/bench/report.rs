//! The table of a bench: medians and quartiles side by side, with the ratio to the first peer.

use std::fmt::Write;

use super::cpu::Reading;
use super::measure::{Cost, median, quantile};

/// One tool's runs of one job.
pub(crate) struct Row {
    /// What ran, as a user would type it.
    pub(crate) tool: String,
    /// Every counted run.
    pub(crate) costs: Vec<Cost>,
    /// Bytes that it stored, for dumps.
    pub(crate) bytes: Option<u64>,
    /// Whether its output restored to an equal database; `None` when it could not run at all.
    pub(crate) equal: Option<bool>,
    /// Whether there is an output to compare; a bound has none.
    pub(crate) compared: bool,
    /// Why it could not run, or differs.
    pub(crate) note: String,
}

impl Row {
    /// A row without runs.
    pub(crate) fn new(tool: &str) -> Self {
        Self {
            tool: tool.to_owned(),
            costs: Vec::new(),
            bytes: None,
            equal: None,
            compared: true,
            note: String::new(),
        }
    }

    /// Notes why it does not run any more.
    pub(crate) fn fail(&mut self, error: &str) {
        let last = error.lines().last().unwrap_or_default();
        self.note = last.replace('|', "/");
        eprintln!("{}: {error}", self.tool);
    }

    /// Notes the comparison of one output.
    pub(crate) fn compare(&mut self, equal: bool) {
        self.equal = Some(self.equal.unwrap_or(true) && equal);
    }
}

/// Renders rows as a Markdown table; ratios are peer ÷ first row, so above 1 the first is faster.
pub(crate) fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!("\n### {title}\n\n");
    text.push_str(
        "| tool | median s | quartiles | × pgstow | CPU s: tool | server | engine | machine | \
         peak MiB | MB out | equal |\n",
    );
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    // A pipe would end the cell.
    let shown = |tool: &str| tool.replace('|', "\\|");
    let base = rows.first().map_or(0.0, |row| median(&walls(row)));
    for row in rows {
        if row.costs.is_empty() || row.equal != Some(true) {
            let why = if row.note.is_empty() {
                "output differs: void"
            } else {
                &row.note
            };
            let dashes = "– | ".repeat(9);
            let _ = writeln!(text, "| `{}` | {dashes}{why} |", shown(&row.tool));
            continue;
        }
        let wall = walls(row);
        let cpu = |of: fn(&Reading) -> f64| {
            median(
                &row.costs
                    .iter()
                    .map(|cost| of(&cost.cpu))
                    .collect::<Vec<_>>(),
            )
        };
        let peak = row.costs.iter().map(|cost| cost.peak).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "| `{}` | {:.2} | {:.2}–{:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {} | {} |",
            shown(&row.tool),
            median(&wall),
            quantile(&wall, 0.25),
            quantile(&wall, 0.75),
            median(&wall) / base.max(f64::EPSILON),
            cpu(|cpu| cpu.tool),
            cpu(|cpu| cpu.server),
            cpu(|cpu| cpu.engine),
            cpu(|cpu| cpu.machine),
            peak as f64 / f64::from(1 << 20),
            row.bytes.map_or_else(
                || "–".to_owned(),
                |bytes| format!("{:.1}", bytes as f64 / 1e6)
            ),
            if row.compared { "yes" } else { "–" },
        );
    }
    text
}

/// Stored bytes read for each second and for each second of CPU time of the tool's own process.
pub(crate) fn throughput(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| reader | MB stored / s | MB stored / CPU s of its process |\n| --- | --- | --- |\n",
    );
    for row in rows.iter().filter(|row| !row.costs.is_empty()) {
        let cpu: Vec<f64> = row.costs.iter().map(|cost| cost.cpu.tool).collect();
        let megabytes = row.bytes.unwrap_or(0) as f64 / 1e6;
        let rate = |seconds: f64| megabytes / seconds.max(f64::EPSILON);
        let _ = writeln!(
            text,
            "| `{}` | {:.0} | {:.0} |",
            row.tool,
            rate(median(&walls(row))),
            rate(median(&cpu))
        );
    }
    text
}

fn walls(row: &Row) -> Vec<f64> {
    row.costs.iter().map(|cost| cost.wall).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_whose_output_differs_is_void() {
        let cost = Cost {
            wall: 2.0,
            cpu: Reading::default(),
            peak: 1 << 20,
        };
        let row = |tool: &str, equal| {
            let mut row = Row::new(tool);
            row.costs = vec![cost];
            row.compare(equal);
            row
        };
        let text = table("t", &[row("good", true), row("bad", false)]);
        assert!(text.contains("| `good` | 2.00"), "{text}");
        assert!(text.contains("| `bad` | – |"), "{text}");
    }
}
