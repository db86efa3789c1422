//! The table that is printed and published, and criterion's results for its last row.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Rows in the order they were measured.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// Adds a row: what, measured value, nginx's or the direct value, ratio to it, goal.
    pub fn row(&mut self, what: &str, value: String, anchor: String, ratio: Option<f64>, goal: &str) {
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        eprintln!("{what}: {value}");
        self.rows.push([what.to_owned(), value, anchor, ratio, goal.to_owned()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["measure", "value", "anchor", "ratio", "goal"].map(str::to_owned);
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                self.rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0)
            })
            .collect();
        for (nth, row) in [&head].into_iter().chain(&self.rows).enumerate() {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if nth == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(f, "|-{}-|", rule.join("-|-"))?;
            }
        }
        Ok(())
    }
}

/// Median milliseconds of every criterion benchmark whose name has `part` in it.
pub fn criterion_ms(folder: &Path, part: &str) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    collect(folder, "", part, &mut found);
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found
}

fn collect(folder: &Path, name: &str, part: &str, found: &mut Vec<(String, f64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let step = entry.file_name().to_string_lossy().into_owned();
        if step == "new" {
            let estimates = fs::read_to_string(path.join("estimates.json")).ok();
            let estimates: Option<Value> = estimates.and_then(|text| serde_json::from_str(&text).ok());
            let nanoseconds = estimates.and_then(|json| json["median"]["point_estimate"].as_f64());
            if let Some(nanoseconds) = nanoseconds.filter(|_| name.contains(part)) {
                found.push((name.to_owned(), nanoseconds / 1e6));
            }
        } else if path.is_dir() && !matches!(step.as_str(), "base" | "report" | "change") {
            let name = if name.is_empty() { step } else { format!("{name}/{step}") };
            collect(&path, &name, part, found);
        }
    }
}
