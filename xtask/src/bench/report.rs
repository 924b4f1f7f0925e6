//! The table of a bench: medians and quartiles side by side, with the ratio to the first peer.

use std::fmt::Write;

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
    /// Why it could not run, or differs.
    pub(crate) note: String,
}

/// Renders rows as a Markdown table; ratios are peer ÷ first row, so above 1 the first is faster.
pub(crate) fn table(title: &str, rows: &[Row]) -> String {
    let mut text = format!("\n### {title}\n\n");
    text.push_str(
        "| tool | median s | quartiles | × pgstow | CPU s | peak MiB | MB out | equal |\n",
    );
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    let base = rows.first().map_or(0.0, |row| median(&walls(row)));
    for row in rows {
        if row.costs.is_empty() || row.equal != Some(true) {
            let why = if row.note.is_empty() {
                "output differs: void"
            } else {
                &row.note
            };
            let _ = writeln!(text, "| `{}` | – | – | – | – | – | – | {why} |", row.tool);
            continue;
        }
        let wall = walls(row);
        let cpu: Vec<f64> = row.costs.iter().map(|cost| cost.cpu).collect();
        let peak = row.costs.iter().map(|cost| cost.peak).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "| `{}` | {:.2} | {:.2}–{:.2} | {:.2} | {:.2} | {:.0} | {} | yes |",
            row.tool,
            median(&wall),
            quantile(&wall, 0.25),
            quantile(&wall, 0.75),
            median(&wall) / base.max(f64::EPSILON),
            median(&cpu),
            peak as f64 / f64::from(1 << 20),
            row.bytes
                .map_or_else(|| "–".to_owned(), |bytes| (bytes / 1_000_000).to_string()),
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
        let cpu: Vec<f64> = row.costs.iter().map(|cost| cost.cpu).collect();
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
            cpu: 1.0,
            peak: 1 << 20,
        };
        let row = |tool: &str, equal| Row {
            tool: tool.to_owned(),
            costs: vec![cost],
            bytes: None,
            equal: Some(equal),
            note: String::new(),
        };
        let text = table("t", &[row("good", true), row("bad", false)]);
        assert!(text.contains("| `good` | 2.00"), "{text}");
        assert!(text.contains("| `bad` | – |"), "{text}");
    }
}
